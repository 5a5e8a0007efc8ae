"""The daemon's round, four times a second: what has ended, what was logged, what is requested, what starts.

Each part acts on the difference between the store and the world, so a part that fails, because the database is locked
or the disk full, is simply done in the next round. The daemon can be killed at any line.
"""

import contextlib
import logging
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine import __version__
from engine.base.disk_room import inodes_left, no_inodes
from engine.base.errors import EngineError
from engine.base.messages import MessageTemplate, msg
from engine.base.units import bytes_text, duration
from engine.base.workspace import Workspace
from engine.daemon import daemon_client, placement, process_control
from engine.daemon.daemon_files import bound_file, same_file
from engine.daemon.engine_watch import Engine, Engines
from engine.daemon.forkserver_client import ForkServer
from engine.daemon.limits import IDLE_EXIT, Limits
from engine.daemon.placement import Machine
from engine.daemon.scheduler import decide
from engine.daemon.scheduler_state import (
    CPU_SLOTS,
    Decision,
    GiveWay,
    Start,
    StartEngine,
    State,
    Wait,
    WaitEngine,
    WaitKind,
)
from engine.daemon.server_watch import ServerWatch
from engine.daemon.supervisor import Supervisor
from engine.daemon.telemetry import Telemetry, publish
from engine.daemon.trash_room import make_room
from engine.daemon.wake_pipe import Wake
from engine.notify.notifier import Notifier
from engine.store import queries, queue, run_lifecycle
from engine.store.connect import Changes, Connection, DatabaseError, writer
from engine.store.discover import import_unknown
from engine.store.run_records import Run
from engine.store.store_errors import StoreForeign, StoreNewer
from engine.store.transactions import write

_FIRST_FIGURES_SECONDS = 5.0
_PAUSE_AFTER_TROUBLE_SECONDS = 1.0
_INODES_OF_A_RUN = 100
"""Files and folders of a run with a few checkpoints."""
_NOTHING_TO_DO = MessageTemplate("nothing to do for {idle}")
CLOCK = "clock"
"""The fact that keeps which boot of the machine it was, and by how much clock and uptime differed."""

log = logging.getLogger("daemon")


@dataclass(frozen=True, slots=True)
class Options:
    """How a daemon is to behave; tests give it other limits and another program for a worker."""

    idle_exit_seconds: float = 0.0
    """Leave after so long without runs; 0: as the workspace says, else stay."""
    command: Sequence[str] | None = None
    """Stands in for `python -m engine.worker`."""
    warm: bool = True
    limits: Limits = Limits()


class Daemon:
    """One workspace's daemon. The caller holds the lock."""

    def __init__(self, workspace: Workspace, lock: int, options: Options = Options()) -> None:
        self.workspace, self.options, self.limits = workspace, options, options.limits
        self._lock_file = os.fstat(lock)
        self._conn = writer(workspace.database, busy_seconds=self.limits.database_seconds)
        self._database_file = os.stat(workspace.database)
        self._changes = Changes(self._conn)
        off = "switched off" if not options.warm else "runs are given another worker" if options.command else ""
        self._fork_server = ForkServer(off)
        self._telemetry = Telemetry(self._conn, workspace, self.limits)
        self._supervisor = Supervisor(
            self._conn, workspace, self._fork_server, self.limits, self._telemetry.gpu_memory, options.command
        )
        self._engines = Engines(workspace, self._fork_server, self.limits)
        self._server_watch = ServerWatch(workspace)
        self._notifier = Notifier(workspace)
        self._machine = Machine()
        self._cpu_slots = 1
        self._started = time.time()
        self._leaving = ""
        self._dirty = True
        """Something has changed that `Changes` does not tell: our own writes, an end, the warm process."""
        self._next_second = self._next_schedule = self._next_room = 0.0
        self._busy_at = time.monotonic()
        self._trouble = ""
        self._pause_written_at: dict[int, float] = {}
        self._clock: float | None = None
        """The difference between clock and uptime when it was last looked at."""
        self._wake = Wake()

    # -- life ----------------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Until asked to leave; why it left. Workers go on without it."""
        process_control.adopt_orphans()
        with contextlib.suppress(EngineError, DatabaseError):  # every command that looks does it, too
            import_unknown(self._conn, self.workspace)
        self._notifier.start()
        self._telemetry.start()
        self._telemetry.wait(_FIRST_FIGURES_SECONDS)
        log.info("daemon %s for %s, pid %d", __version__, self.workspace.root, os.getpid())
        try:
            while not self._leaving:
                self._round()
                if not self._leaving:
                    self._wait()
        finally:
            self._close()
        log.info("leaving: %s", self._leaving)
        return self._leaving

    def handle_signals(self, foreground: bool) -> None:
        """SIGTERM and SIGINT: leave. Losing the terminal matters only to a daemon that was started in one."""
        self._wake.install()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(
                number, lambda number, frame: self.leave(msg("asked by {name}", name=signal.Signals(number).name))
            )
        hang_up = (lambda number, frame: self.leave("the terminal is gone")) if foreground else signal.SIG_IGN
        signal.signal(signal.SIGHUP, hang_up)

    def leave(self, why: str) -> None:
        """After the present round. Safe to call from a signal handler."""
        self._leaving = self._leaving or why
        self._wake.now()

    def has_work(self) -> bool:
        """Whether a run waits that may start. Asked once more after the lock was given up."""
        return any(not run.held for run in queries.queue(self._conn))

    def _close(self) -> None:
        with contextlib.suppress(EngineError, DatabaseError):
            self._telemetry.close()
        self._notifier.close()
        self._fork_server.leave()

    def _wait(self) -> None:
        """Until the next round is due, a child ends, or the warm process has news."""
        files = [self._wake.fileno(), *([self._fork_server.fileno()] if self._fork_server.fileno() >= 0 else [])]
        select.select(files, [], [], self.limits.tick_seconds)
        self._wake.clear()

    # -- one round -----------------------------------------------------------------------------------------------

    def _round(self) -> None:
        try:
            self._follow_clock()
            self._collect()
            logged = self._supervisor.read_journals()
            self._dirty |= self._engines.look()
            changed = self._changes.changed() or self._dirty
            if changed or logged:
                self._dirty = False
                self._supervisor.follow()
            if changed:
                self._next_schedule = 0.0
            now = time.monotonic()
            if now >= self._next_second:
                self._next_second = now + 1.0
                self._second()
            if now >= self._next_schedule:
                self._next_schedule = now + self.limits.schedule_seconds
                self._schedule()
            self._trouble = ""
        except (StoreForeign, StoreNewer):
            raise  # no round will mend that
        except (EngineError, DatabaseError, OSError) as error:
            self._put_off(str(error), log.warning)  # a locked database, a full disk
        except Exception as error:  # a fault of ours in one round must not leave all runs without a daemon
            self._put_off(f"{type(error).__name__}: {error}", log.exception)

    def _put_off(self, trouble: str, tell: Callable[[str, str], None]) -> None:
        """The rest of the round is done in the next; why is said once."""
        self._dirty = True
        if trouble != self._trouble:
            tell("%s", trouble)
        self._trouble = trouble
        if not self._leaving:
            time.sleep(min(_PAUSE_AFTER_TROUBLE_SECONDS, self.limits.tick_seconds * 4))

    def _follow_clock(self) -> None:
        """When the clock is set, what is going on is moved along: when it began, when it is due, when it is retried.

        The difference is kept in the store, so that a clock set while no daemon ran is noticed, too.
        """
        offset = process_control.clock_offset()
        previous, self._clock = self._clock, offset
        if previous is not None and abs(offset - previous) < self.limits.clock_seconds:
            return
        boot = process_control.boot_id() or "-"
        stored = (queries.get_meta(self._conn, CLOCK) or "").split()
        moved = offset - float(stored[1]) if len(stored) == 2 and stored[0] == boot else 0.0
        if len(stored) == 2 and stored[0] == boot and abs(moved) < self.limits.clock_seconds:
            return
        self._clock = None  # until it is in the store
        with write(self._conn):
            if moved:
                run_lifecycle.clock_moved(self._conn, moved)
            queue.set_meta(self._conn, CLOCK, f"{boot} {offset!r}")
        self._clock = offset
        if moved:
            log.warning("the clock was set by %+.0f s", moved)
            self._started += moved
            self._pause_written_at.clear()
            self._telemetry.clock_moved()
            self._dirty = True
            self._next_second = 0.0  # daemon.json tells the time, too

    def _collect(self) -> None:
        """Children that have ended, and workers that are gone."""
        ended = process_control.reap()
        self._supervisor.statuses.update(ended)
        self._engines.statuses.update(ended)
        for pid, status in ended.items():
            if self._fork_server.reaped(pid, status):
                self._dirty = True
        self._fork_server.listen()
        for news in self._fork_server.news:
            log.info("%s", news)
            self._dirty = True
        self._fork_server.news.clear()
        if self._supervisor.collect() | self._engines.collect():
            self._dirty = True

    def _second(self) -> None:
        """What is done once a second."""
        # What is queued in another runs.db than the one open here would never be seen.
        files = ((self.workspace.daemon_lock, self._lock_file), (self.workspace.database, self._database_file))
        if not all(same_file(path, opened) for path, opened in files):
            self.leave("the workspace is gone")
            return
        self._supervisor.check_heartbeats()
        workers = self._supervisor.workers.values()
        now, active = time.monotonic(), [worker.run for worker in workers]
        if now >= self._next_room and make_room(self._conn, self.workspace, active):
            self._next_room, self._dirty = now + self.limits.trash_seconds, True
        processes = {w.run.id: (w.pid, w.started) for w in workers if w.pid is not None}
        self._telemetry.watch(processes, self._engines.processes())
        snapshot = self._telemetry.latest()
        self._machine = placement.machine(snapshot, os.environ)
        self._cpu_slots = cpu_slots(self._conn)
        self._telemetry.observe(snapshot, [worker.run for worker in workers], self._machine.samples)
        self._publish_state()
        self._engines.check(self._server_watch.check())
        bound_file(self.workspace.daemon_log, self.limits.log_bytes)
        self._leave_if_idle(bool(workers or self._engines.living()) or self._notifier.waiting > 0)

    def _publish_state(self) -> None:
        content = {
            "pid": os.getpid(),
            "started": self._started,
            "t": time.time(),
            "version": __version__,
            "warm": self._fork_server.state,
            "cpu_slots": self._cpu_slots,
        }
        publish(self.workspace.daemon_state, content)

    def _leave_if_idle(self, busy: bool) -> None:
        """With nothing to do: give back the warm process' memory, and leave if that is set."""
        now = time.monotonic()
        if busy or self.has_work():
            self._busy_at = now
        idle = now - self._busy_at
        if idle > self.limits.warm_idle_seconds:
            self._fork_server.leave()
        if 0 < (self.options.idle_exit_seconds or idle_exit_seconds(self._conn)) < idle:
            self.leave(_NOTHING_TO_DO(idle=duration(idle)))

    # -- what starts ---------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        waiting, engines = queries.queue(self._conn), self._engines.wanted()
        if not waiting and not engines:
            return
        if engines or any(not run.held for run in waiting):
            # Loaded when it is first needed: a workspace that is only looked at keeps its memory.
            self._fork_server.ensure_started()
        if self._machine.trouble:
            queue.set_waiting(self._conn, {run.id: (WaitKind.BUSY.value, self._machine.trouble) for run in waiting})
            for engine in engines:
                self._engines.wait(engine.folder.name, self._machine.trouble)
            return
        decisions = decide(self._state(waiting, engines))
        loading_seconds = self._fork_server.loading_seconds()
        is_loading = self._fork_server.state == "loading" and loading_seconds < self.limits.warm_patience_seconds
        by_id = {run.id: run for run in waiting}
        reasons: dict[int, tuple[str, str]] = {}
        for decision in decisions:
            if isinstance(decision, Wait):
                if self._worth_writing(decision.run, decision.kind, by_id[decision.run].wait_kind):
                    reasons[decision.run] = (decision.kind.value, decision.reason)
            elif not isinstance(decision, Start):
                self._about_engine(decision, is_loading)
            elif why := self._supervisor.may_start(decision.run):
                reasons[decision.run] = (WaitKind.BUSY.value, why)
            elif not is_loading:
                self._start(decision, by_id[decision.run].gpus_wanted)
        queue.set_waiting(self._conn, reasons)

    def _state(self, waiting: Sequence[Run], engines: Sequence[Engine]) -> State:
        """What the scheduler decides on."""
        dependencies = queries.dependencies(self._conn)
        active = [worker.run for worker in self._supervisor.workers.values()]
        samples, snapshot = self._machine.samples, self._telemetry.latest()
        return State(
            waiting=tuple(placement.waiting_run(run, dependencies.get(run.id, ())) for run in waiting),
            active=tuple(placement.active_run(run, samples, snapshot.runs) for run in active),
            gpus=self._machine.gpus,
            cpu_slots=self._cpu_slots,
            disk_full=self._disk_full(),
            now=time.time(),
            wanted=self._engines.waiting_engines(engines),
            engines=tuple(
                placement.active_engine(engine.folder.name, engine.state, samples, snapshot.runs)
                for engine in self._engines.living()
            ),
            host=placement.host_memory(snapshot),
        )

    def _about_engine(self, decision: Decision, is_loading: bool) -> None:
        if isinstance(decision, GiveWay):
            self._engines.give_way(decision.key, decision.run)
        elif isinstance(decision, WaitEngine):
            self._engines.wait(decision.key, decision.reason)
        elif isinstance(decision, StartEngine) and not is_loading:
            gpus = [self._machine.samples[gpu] for gpu in decision.gpus]
            environment = placement.run_environment(gpus, len(gpus), bool(self._machine.gpus), self._cpu_slots)
            self._engines.start(decision.key, decision.gpus, environment)
            self._dirty = True

    def _start(self, decision: Start, gpus_wanted: int) -> None:
        gpus = [self._machine.samples[gpu] for gpu in decision.gpus]
        environment = placement.run_environment(gpus, gpus_wanted, bool(self._machine.gpus), self._cpu_slots)
        self._supervisor.start(decision.run, decision.gpus, environment)
        self._dirty = True

    def _worth_writing(self, run_id: int, kind: WaitKind, stored: str | None) -> bool:
        """A pause that counts down is written every 10 s: each write makes every front end read again."""
        if kind is not WaitKind.LATER or stored != kind.value:
            return True
        now = time.monotonic()
        if now - self._pause_written_at.get(run_id, 0.0) < 10.0:
            return False
        self._pause_written_at[run_id] = now
        return True

    def _disk_full(self) -> str:
        try:
            free = shutil.disk_usage(self.workspace.root).free
            if not inodes_left(self.workspace.root, _INODES_OF_A_RUN):
                return no_inodes(self.workspace.root)
        except OSError as error:
            return msg(
                "the disk of {root} does not answer: {strerror}", root=self.workspace.root, strerror=error.strerror
            )
        reserve = self.limits.disk_reserve_bytes
        if free >= reserve:
            return ""
        return msg(
            "the disk is full: {free} free, nothing starts below {reserve}",
            free=bytes_text(free),
            reserve=bytes_text(reserve),
        )


def cpu_slots(conn: Connection) -> int:
    """How many runs may train on the CPU at the same time; 1 unless set otherwise."""
    slots = queries.get_meta(conn, CPU_SLOTS)
    return int(slots) if slots is not None and slots.isdecimal() else 1


def idle_exit_seconds(conn: Connection) -> float:
    """After how long without runs a daemon of this workspace leaves; 0: never, unless set otherwise."""
    seconds = queries.get_meta(conn, IDLE_EXIT)
    return float(seconds) if seconds is not None and seconds.isdecimal() else 0.0


def serve(workspace: Workspace, options: Options = Options(), foreground: bool = False) -> int:
    """Be the daemon of a workspace until asked to leave; the exit code. 0 at once where another one is.

    Main thread only: it takes SIGTERM and SIGINT for a request to leave.
    """
    while True:
        lock = daemon_client.take_lock(workspace)
        if lock is None:
            log.info("another daemon has the workspace")
            return 0
        try:
            daemon = Daemon(workspace, lock, options)
            daemon.handle_signals(foreground)
            why = daemon.run()
        finally:
            os.close(lock)
        # Whoever queued a run just before the lock was given up saw a daemon, and started none.
        if _NOTHING_TO_DO.values_in(why) and daemon.has_work():
            continue
        return 0
