"""Workers: started, found again, watched, signalled, and put on record when they have ended.

Everything here can be done again: what the store says is compared with what there is, and the difference is acted on.
So it does not matter at which line the daemon before was killed, or which write failed because the database was locked.

A run is started once because of the lock on its log. The daemon takes it before the worker is made, the worker inherits
it, and holds it until its last process is gone; a claimed run whose log is not locked was never started, or its worker
is gone. Its pid is in the store, or in its journal's first beat.
"""

import contextlib
import logging
import platform
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.base.errors import EngineError, InputError
from engine.base.log_tail import last_lines
from engine.base.messages import msg
from engine.base.oom_kills import OomWatch
from engine.base.units import duration
from engine.base.worker_process import started_at, worker_alive
from engine.base.workspace import LOG, Workspace
from engine.daemon import process_control, retry_policy
from engine.daemon.exit_status import ExitCause, ExitEvidence, ExitStatus, classify_exit
from engine.daemon.forkserver_client import ForkServer
from engine.daemon.launch import launch
from engine.daemon.limits import Limits
from engine.daemon.retry_policy import GpuMemory
from engine.daemon.worker_end import is_ours, last_output, rebooted_since_start, signal_sent_before
from engine.daemon.worker_watch import Worker, file_stamp, heartbeat_deadline, last_pid
from engine.runs import journal
from engine.settings.resolve import read_run
from engine.store import queries, queue, run_lifecycle
from engine.store.connect import Connection, DatabaseError
from engine.store.journal_import import import_journal
from engine.store.run_records import ACTIVE, Event, Run, RunState
from engine.store.store_errors import StoreError
from engine.store.transactions import write

_ALL = 1_000_000
"""Events of a run that has ended: how it began may lie thousands of them back."""

log = logging.getLogger("daemon")


@dataclass(slots=True)
class Supervisor:
    conn: Connection
    workspace: Workspace
    fork_server: ForkServer
    limits: Limits
    gpu_memory_of: Callable[[int], GpuMemory]
    """What is known of the GPUs of a run, for one that ran out of memory."""
    command: Sequence[str] | None = None
    """Stands in for `python -m engine.worker`."""
    workers: dict[int, Worker] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    """Of children that were reaped: pid to wait status."""
    _host: str = field(default_factory=platform.node)
    _boot: str = field(default_factory=process_control.boot_id)

    # -- start ---------------------------------------------------------------------------------------------------

    def may_start(self, run_id: int) -> str:
        """Why a run must wait although the scheduler lets it start; empty if it need not."""
        if run_id in self.workers:
            return "its last worker is still leaving"
        if worker_alive(self.workspace.runs / str(run_id)):
            return "a worker of it is still alive"
        return ""

    def start(self, run_id: int, gpus: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Claim a waiting run and give it a worker. False if another process had it, or it could not be started."""
        run = run_lifecycle.claim(self.conn, run_id, gpus, self._host)
        if run is None:
            return False
        folder = self.workspace.runs / str(run_id)
        worker = Worker(run, folder)
        try:
            pid, how = self._launch(worker, environment)
        except InputError:  # a worker has it: forked after all while we waited in vain, or started by hand just now
            self.workers[run_id] = worker
            return True
        except OSError as error:
            where = msg(" ({path})", path=error.filename) if error.filename else ""
            cause = error.strerror or str(error)
            reason = msg("no worker could be started: {cause}{where}", cause=cause, where=where)
            exit_status = ExitStatus(ExitCause.NOT_STARTED, RunState.FAILED, reason)
            self._record_exit(worker, exit_status, reason, queries.events(self.conn, run_id, limit=_ALL))
            return False
        self.workers[run_id] = worker
        where = msg(" on GPU {gpus}", gpus=", ".join(gpus)) if gpus else ""
        log.info("run %d started%s, %s, pid %d", run_id, where, how, pid)
        self._record(worker, pid, msg("Started{where}, {how} (pid {pid}).", where=where, how=how, pid=pid))
        return True

    def _launch(self, worker: Worker, environment: Mapping[str, str]) -> tuple[int, str]:
        """Give it a process, forked where possible: its pid, and how in one word."""
        run, folder = worker.run, worker.folder
        point = "latest" if run.resume_step is None else str(run.resume_step)
        if not folder.is_dir():
            raise FileNotFoundError(2, "its folder is gone", str(folder))
        words, root = ["--from", point], self.workspace.root
        worker.pid, worker.process = launch(self.fork_server, folder, words, environment, root, command=self.command)
        worker.started = started_at(worker.pid)
        worker.oom = OomWatch(worker.pid)
        return worker.pid, "spawned" if worker.process else "forked"

    # -- found again ---------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Compare the store's active runs with the workers known; find workers again, and carry out requests."""
        rows = {run.id: run for run in (*queries.active(self.conn), *queries.unsettled(self.conn))}
        for run in rows.values():
            worker = self.workers.get(run.id)
            if worker is None:
                worker = self._adopt(run)
            if worker is not None:
                worker.run = run
                worker.requested = run.wanted or worker.requested
                self._send_requested_signal(worker)

    def _adopt(self, run: Run) -> Worker | None:
        """A run that has a worker, or was to get one, of which this daemon knows nothing."""
        if run.host not in (None, self._host):
            return None  # another machine's, over a shared file system
        folder = self.workspace.runs / str(run.id)
        worker = Worker(run, folder, run.pid, run.pid_started, recorded=run.pid is not None)
        if run.pid is None and not worker_alive(folder):
            if import_journal(self.conn, run.id, folder).events:
                worker.pid, worker.started = last_pid(folder)  # it came, and has gone, while nobody looked
            if worker.pid is None:
                self._give_back(run)
                return None
        if worker.pid is not None:
            worker.oom = OomWatch(worker.pid, self._oom_counts_at_start(run))
        self.workers[run.id] = worker
        log.info("run %d found, pid %s", run.id, run.pid or "not yet known")
        return worker

    def _give_back(self, run: Run) -> None:
        """A claimed run that nobody ever trained: the daemon was killed before it could give it a worker."""
        if run.wanted:
            run_lifecycle.finish(self.conn, run.id, RunState.STOPPED, "stopped before it began")
        elif run_lifecycle.unclaim(self.conn, run.id):
            message = "It had been claimed, but no worker came up: it takes its turn again."
            queue.note(self.conn, run.id, "unclaimed", message)
            log.info("run %d had no worker and is queued again", run.id)

    def _identify(self, worker: Worker) -> None:
        """The pid of a worker known by its lock only, from its journal."""
        pid, written_at = last_pid(worker.folder)
        started = None if pid is None else started_at(pid)
        if pid is None or started is None:
            return
        # A later process of that number began after the line was written; or the clock was set, and it holds the log.
        is_older = started <= written_at + process_control.START_TOLERANCE_SECONDS
        if is_older or process_control.has_log(pid, worker.folder):
            worker.pid, worker.started, worker.oom = pid, started, OomWatch(pid)

    def _oom_counts_at_start(self, run: Run) -> dict | None:
        """What an earlier daemon found counted when it started the worker, which may have died since."""
        events = queries.events(self.conn, run.id, limit=_ALL)
        start = next((event.detail for event in reversed(events) if event.kind == retry_policy.START), {})
        same = start.get("pid") == run.pid and start.get("boot") == self._boot
        return start.get("oom") if same else None

    def _record(self, worker: Worker, pid: int, message: str = "") -> None:
        """Keep its process in the store. The event is how a later daemon knows the worker for one of the queue's."""
        with write(self.conn):
            run_lifecycle.started(self.conn, worker.run.id, pid, worker.started or 0.0)
            self._note(
                worker,
                retry_policy.START,
                message or msg("Started (pid {pid}).", pid=pid),
                pid=pid,
                boot=self._boot,
                oom=worker.oom.counts if worker.oom else None,
            )
        worker.recorded = True

    # -- requests ------------------------------------------------------------------------------------------------

    def _send_requested_signal(self, worker: Worker) -> None:
        """Stop: asked to save and leave, as long as it takes. Kill: ended at once, with all its processes."""
        request, is_running = worker.requested, worker.exited_at is None and worker.run.state in ACTIVE
        if request is None or request == worker.signal_sent or worker.signal_sent == "kill":
            return  # nothing new, or nothing left that could follow
        if worker.pid is None or not is_running:
            return
        if request == "stop":
            process_control.send_signal(worker.pid, signal.SIGTERM)
            message = "Asked to save and leave."
        else:
            process_control.kill_session(worker.pid)
            message = "Killed, as you wished."
        worker.signal_sent = request
        log.info("run %d: %s", worker.run.id, message)
        self._note(worker, request, message)

    # -- listening -----------------------------------------------------------------------------------------------

    def read_journals(self) -> bool:
        """Import what the journals have gained; True if anything was. A look at one that has not costs a stat."""
        changed = False
        for worker in self.workers.values():
            now = file_stamp(worker.folder / journal.NAME)
            if now != worker.journal_stat:
                with self._isolated(worker):
                    changed |= import_journal(self.conn, worker.run.id, worker.folder).events > 0
                    worker.journal_stat = now
        return changed

    def check_heartbeats(self) -> None:
        """Broken promises: reported, and after a long silence taken for a hang. Called once a second."""
        now = time.monotonic()
        for worker in self.workers.values():
            due = heartbeat_deadline(worker, now)
            if worker.oom and worker.exited_at is None:
                worker.oom.still_alive()
            if due is None or worker.pid is None or now <= due + self.limits.overdue_seconds:
                worker.overdue_at, worker.reported = None, False
                continue
            if worker.overdue_at and process_control.disk_is_full(worker.folder):
                worker.overdue_at = now  # it cannot write a sign of life, and waits until it can
            # Counted from when this daemon first saw it, by a clock that nobody sets and that sleeps with the machine.
            worker.overdue_at = worker.overdue_at or now
            silence = now - worker.overdue_at
            if not worker.reported:
                suspended = "; its process is suspended" if process_control.is_suspended(worker.pid) else ""
                self._note(
                    worker, "overdue", msg("No sign of life where one was promised{suspended}.", suspended=suspended)
                )
                worker.reported = True
                log.warning("run %d is overdue%s", worker.run.id, suspended)
            if (
                silence > self.limits.hung_seconds
                and not worker.hung_at
                and not process_control.is_suspended(worker.pid)
            ):
                worker.hung_at = now
                log.warning("run %d hangs and is killed", worker.run.id)
                process_control.kill_session(worker.pid)  # first: the note may not go through
                self._note(
                    worker, "hung", msg("Killed after {silence} without a sign of life.", silence=duration(silence))
                )

    # -- the end -------------------------------------------------------------------------------------------------

    def collect(self) -> bool:
        """Take note of the workers that are gone; True if there was one."""
        changed = False
        for worker in list(self.workers.values()):
            with self._isolated(worker):
                changed |= self._poll_worker(worker)
        ours = {worker.pid for worker in self.workers.values()}
        self.statuses = {pid: status for pid, status in self.statuses.items() if pid in ours}
        return changed

    def _poll_worker(self, worker: Worker) -> bool:
        if worker.pid is None:
            if worker_alive(worker.folder):
                self._identify(worker)
            elif worker.exited_at is None:
                worker.exited_at = time.monotonic()  # one more look: its last lines may hold its pid, and its end
                self._identify(worker)
            else:
                del self.workers[worker.run.id]  # `follow` finds that nobody has it
                return True
            return False
        if not worker.recorded:
            self._record(worker, worker.pid)
        if worker.status is None:
            worker.status = self.statuses.get(worker.pid, self.fork_server.ended.pop(worker.pid, None))
            if worker.process and worker.status is not None:
                worker.process.returncode = worker.status  # reaped by us, not by subprocess
        if worker.status is None:
            if process_control.is_alive(worker.pid, worker.started, worker.folder):
                return False
            worker.exited_at = worker.exited_at or time.monotonic()
            if time.monotonic() - worker.exited_at < process_control.STATUS_SECONDS:
                return False
        self._on_worker_exit(worker, worker.pid)
        return True

    def _on_worker_exit(self, worker: Worker, pid: int) -> None:
        """Its process is gone: what became of the run, and whether it is started again."""
        if started_at(pid) is None:
            process_control.kill_session(pid)  # loaders and helpers it left behind
        import_journal(self.conn, worker.run.id, worker.folder)
        run = queries.run(self.conn, worker.run.id)
        if run is None:
            del self.workers[worker.run.id]
            return
        worker.run = run
        events = queries.events(self.conn, run.id, limit=_ALL)
        hung = time.monotonic() - worker.overdue_at if worker.hung_at and worker.overdue_at else None
        exit_status = classify_exit(
            ExitEvidence(
                worker.status,
                last_output(worker, events),
                worker.signal_sent or worker.requested or signal_sent_before(events),
                is_ours(worker, events),
                hung,
                worker.oom.verdict() if worker.oom else "",
                rebooted_since_start(worker, events, self._boot),
                run.step,
            )
        )
        log.info("run %d ended: %s %s", run.id, exit_status.cause, exit_status.reason or "")
        with contextlib.suppress(EngineError):  # as they were, where it could not go on
            settings = read_run(worker.folder)
            queue.put_settings(self.conn, run.id, settings.config.flat(), settings.origin)
        log_tail = last_lines(worker.folder / LOG) if exit_status.state is not RunState.DONE else None
        self._record_exit(worker, exit_status, log_tail, events)

    def _record_exit(
        self, worker: Worker, exit_status: ExitStatus, log_tail: str | None, events: Sequence[Event]
    ) -> None:
        """Into the store, in one transaction with what comes after: nobody finds a failure that nobody looks after."""
        conn, run_id = self.conn, worker.run.id
        with write(conn):
            explanation = (exit_status.reason, log_tail or None, exit_status.exit_code)
            if exit_status.cause is ExitCause.ASKED:
                run_lifecycle.interrupt(conn, run_id, exit_status.reason or "")
            if not run_lifecycle.finish(conn, run_id, exit_status.state, *explanation):
                run_lifecycle.explain(conn, run_id, *explanation)
            cause, reason = exit_status.cause, exit_status.reason or worker.run.reason or ""
            if cause not in (ExitCause.DONE, ExitCause.STOPPED) and (reason or exit_status.state is RunState.FAILED):
                words = msg("{cause}: {reason}", cause=cause.value, reason=reason) if reason else cause.value
                self._note(worker, "ended", words, cause=cause.value if exit_status.reason else None)
            if not worker.requested:
                self._maybe_restart(worker, exit_status, events)
        self.workers.pop(run_id, None)

    def _maybe_restart(self, worker: Worker, exit_status: ExitStatus, events: Sequence[Event]) -> None:
        if exit_status.cause is not ExitCause.NOT_STARTED and not is_ours(worker, events):
            return  # whoever started it by hand sees it, and decides
        try:
            settings = read_run(worker.folder).config.flat()
        except EngineError:
            settings = {}
        gpu_memory = self.gpu_memory_of(worker.run.id)
        restart = retry_policy.decide(worker.run, exit_status, events, settings, gpu_memory, self.limits)
        if restart and retry_policy.apply(self.conn, worker.run, worker.folder, restart, gpu_memory):
            log.info("run %d: %s", worker.run.id, restart.message)

    # -- shared --------------------------------------------------------------------------------------------------

    def _note(self, worker: Worker, kind: str, message: str, **detail: object) -> None:
        queue.note(self.conn, worker.run.id, kind, message, step=worker.run.step or None, detail=detail)

    @contextlib.contextmanager
    def _isolated(self, worker: Worker):
        """One run's trouble is logged once and leaves the others alone. The database's own is everybody's."""
        try:
            yield
            worker.problem = ""
        except (StoreError, DatabaseError):
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            if problem != worker.problem:
                log.exception("run %d: %s", worker.run.id, problem)
            worker.problem = problem
