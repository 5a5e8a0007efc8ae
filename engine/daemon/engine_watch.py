"""Engines: started when the server asks for one, found again, told to give way, and put on record when they have ended.

An engine's folder says all there is to know (`engine.base.engine_folder`), so a daemon that was killed is missed by
nobody: engines go on answering, the next daemon finds them by the lock on their log, and they leave by themselves when
nobody asks. A daemon ends them where no server is left to ask.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.base.engine_folder import EngineFolder, EngineState, EngineWish, engine_folders
from engine.base.errors import InputError
from engine.base.messages import msg, msg_n
from engine.base.oom_kills import OomWatch, oom_reason
from engine.base.units import duration
from engine.base.worker_process import ENGINE, how_it_left, started_at
from engine.base.workspace import Workspace
from engine.daemon import process_control
from engine.daemon.backoff import Backoff
from engine.daemon.forkserver_client import ForkServer
from engine.daemon.launch import launch
from engine.daemon.limits import Limits
from engine.daemon.scheduler_state import WaitingEngine

log = logging.getLogger("daemon")


@dataclass(slots=True)
class Engine:
    """One that lives, is wanted, or has been."""

    folder: EngineFolder
    state: EngineState
    """As its folder has it, while it has a process."""
    wish: EngineWish | None = None
    wished_at: float = 0.0
    """By `monotonic()`, as are the others."""
    process: subprocess.Popen | None = None
    oom: OomWatch | None = None
    status: int | None = None
    """As wait(2) has it, once it has ended."""
    gone_at: float | None = None
    began_at: float = field(default_factory=time.monotonic)
    in_the_way_since: float | None = None
    leaving_since: float | None = None
    behind: int | None = None
    """The run it gave way to."""
    backoff: Backoff = field(default_factory=Backoff)
    reason: str = ""
    """Why it has died."""

    @property
    def lives(self) -> bool:
        """It has a process."""
        return self.state.state in ("runs", "leaves")


class Engines:
    """Those of one workspace."""

    def __init__(
        self, workspace: Workspace, fork_server: ForkServer, limits: Limits, command: Sequence[str] | None = None
    ) -> None:
        """`command` stands in for `python -m engine.worker.answer`."""
        self._workspace, self._fork_server, self._limits, self._command = workspace, fork_server, limits, command
        self._engines: dict[str, Engine] = {}
        self._served_at = time.monotonic()
        self.statuses: dict[int, int] = {}
        """Of children that were reaped: pid to wait status."""

    # -- what is asked -------------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Take the server's wishes, and find engines of a daemon before; True if anything is new."""
        changed = False
        for folder in engine_folders(self._workspace):
            engine = self._engines.get(folder.name)
            if engine is None:
                engine = self._engines[folder.name] = Engine(folder, EngineState("ended"))
                changed |= self._adopt(engine)
            if wish := folder.take_wish():
                changed |= engine.wish is None
                engine.wish, engine.wished_at = wish, time.monotonic()
        return changed

    def _adopt(self, engine: Engine) -> bool:
        if not engine.folder.alive():
            return False
        state, use = engine.folder.state(), engine.folder.use()
        pid = use.pid if use else state.pid if state else None
        engine.state = replace(state or EngineState("runs", engine.folder.name), state="runs", pid=pid)
        if pid is not None:
            engine.state = replace(engine.state, started=started_at(pid))
            engine.oom = OomWatch(pid)
        log.info("engine %s found, pid %s", engine.folder.name, pid or "not yet known")
        return True

    def wanted(self) -> list[Engine]:
        """Those to be placed, in the order in which they were asked for."""
        now, to_start = time.monotonic(), []
        for engine in self._engines.values():
            if engine.wish is not None and now - engine.wished_at > self._limits.engine_wanted_seconds:
                engine.wish = None
            if engine.wish is not None and engine.state.state == "runs":
                engine.folder.put_state(engine.state)  # for a server that found its socket a moment too early
                engine.wish = None
            if engine.wish is not None:
                if reason := self._not_yet(engine):
                    self.wait(engine.folder.name, reason, max(2.0, engine.backoff.seconds_left()))
                else:
                    to_start.append(engine)
        return sorted(to_start, key=lambda engine: engine.wished_at)

    def _not_yet(self, engine: Engine) -> str:
        """Why it may not start, wherever there is room."""
        if engine.state.state == "leaves":
            return engine.state.reason
        if left := engine.backoff.seconds_left():
            return msg_n(
                "the model's process has died before its first answer ({reason}), and is started again in {left}; "
                "log: {log}",
                "the model's process has died {n:,} times in a row before its first answer (the last time: {reason}), "
                "and is started again in {left}; log: {log}",
                engine.backoff.failures,
                left=duration(left),
                reason=engine.reason,
                log=engine.folder.log,
            )
        return ""

    def wait(self, name: str, reason: str, retry_seconds: float = 2.0) -> None:
        """Tell the server why it gets no engine now."""
        engine = self._engines[name]
        base = engine.wish.base if engine.wish else engine.state.base
        wait = EngineState("waits", base, reason, retry_seconds)
        if engine.lives:  # what is known of its process stays on record
            wait = replace(engine.state, state="waits", reason=reason, retry_seconds=retry_seconds)
        engine.folder.put_state(wait)

    def waiting_engines(self, to_start: Sequence[Engine]) -> tuple[WaitingEngine, ...]:
        """As the scheduler takes them."""
        return tuple(
            WaitingEngine(engine.folder.name, engine.wish.base, engine.wish.estimate_bytes, engine.behind)
            for engine in to_start
            if engine.wish
        )

    def living(self) -> list[Engine]:
        """Those that have a process."""
        return [engine for engine in self._engines.values() if engine.lives]

    def processes(self) -> dict[str, tuple[int, float | None]]:
        """Name to pid and start time."""
        return {e.folder.name: (e.state.pid, e.state.started) for e in self.living() if e.state.pid is not None}

    # -- start ---------------------------------------------------------------------------------------------------

    def start(self, name: str, gpus: Sequence[str], environment: Mapping[str, str]) -> None:
        """Give a wanted engine its process."""
        engine = self._engines[name]
        wish = engine.wish
        if wish is None:
            return
        words = [] if wish.estimate_bytes is None else ["--memory-bytes", str(wish.estimate_bytes)]
        words += [] if wish.cache_bytes is None else ["--cache-bytes", str(wish.cache_bytes)]
        engine.folder.make()
        (engine.folder.path / "use.json").unlink(missing_ok=True)
        root = self._workspace.root
        try:
            pid, engine.process = launch(
                self._fork_server, engine.folder.path, words, environment, root, module=ENGINE, command=self._command
            )
        except InputError:  # the one before has not quite gone
            return
        except OSError as error:
            self.wait(name, msg("no process could be made: {error}", error=error.strerror or error))
            return
        engine.status = engine.gone_at = engine.in_the_way_since = engine.leaving_since = engine.behind = None
        engine.began_at, engine.oom, engine.wish = time.monotonic(), OomWatch(pid), None
        engine.state = EngineState(
            "runs",
            wish.base,
            pid=pid,
            started=started_at(pid),
            gpus=tuple(gpus),
            estimate_bytes=wish.estimate_bytes,
        )
        engine.folder.put_state(engine.state)
        log.info("engine %s started%s, pid %d", name, f" on GPU {', '.join(gpus)}" if gpus else "", pid)

    # -- give way ------------------------------------------------------------------------------------------------

    def give_way(self, name: str, run: int | None) -> None:
        """It is in the way of a run, or of another engine: let it leave when it rests, or after a while all the same.
        To be called at every decision that says so."""
        engine = self._engines[name]
        now = time.monotonic()
        if engine.in_the_way_since is None or now - engine.in_the_way_since > 2 * self._limits.engine_busy_seconds:
            engine.in_the_way_since = now
        use = engine.folder.use()
        rests = use is not None and not use.active
        idle = min(now - engine.began_at, time.time() - (use.used_at if use else 0.0))
        if (
            not (rests and idle >= self._limits.engine_rest_seconds)
            and now - engine.in_the_way_since < self._limits.engine_busy_seconds
        ):
            return
        whom = msg("run {run}", run=run) if run is not None else msg("another model that is asked for")
        engine.behind = run
        self._ask_to_leave(engine, msg("waits for room: its memory is given to {whom}", whom=whom))

    def _ask_to_leave(self, engine: Engine, reason: str) -> None:
        pid = engine.state.pid
        if engine.state.state != "runs" or pid is None:
            return
        engine.state = replace(engine.state, state="leaves", reason=reason)
        engine.leaving_since = time.monotonic()
        process_control.send_signal(pid, signal.SIGTERM)
        engine.folder.put_state(engine.state)
        log.info("engine %s is asked to leave: %s", engine.folder.name, reason)

    def check(self, served: bool) -> None:
        """Once a second: those that nobody can ask any more leave, and those that do not are ended."""
        now = time.monotonic()
        if served:
            self._served_at = now
        for engine in self.living():
            if engine.oom:
                engine.oom.still_alive()
            if engine.leaving_since is not None and now - engine.leaving_since > self._limits.engine_leave_seconds:
                if engine.state.pid is not None:
                    process_control.kill_session(engine.state.pid)
            elif now - self._served_at > self._limits.unserved_seconds:
                self._ask_to_leave(engine, "no server runs")

    # -- the end -------------------------------------------------------------------------------------------------

    def collect(self) -> bool:
        """Take note of those that are gone; True if there was one."""
        changed = False
        for engine in self.living():
            if engine.state.pid is None and (use := engine.folder.use()):
                engine.state = replace(engine.state, pid=use.pid, started=started_at(use.pid))
            changed |= self._poll(engine)
        ours = {engine.state.pid for engine in self.living()}
        self.statuses = {pid: status for pid, status in self.statuses.items() if pid in ours}
        return changed

    def _poll(self, engine: Engine) -> bool:
        pid = engine.state.pid
        if pid is not None:
            status = self.statuses.get(pid, self._fork_server.ended.pop(pid, None))
            engine.status = engine.status if status is None else status
            if engine.process and engine.status is not None:
                engine.process.returncode = engine.status  # reaped by us, not by subprocess
        if engine.status is None:
            alive = (
                engine.folder.alive()
                if pid is None
                else process_control.is_alive(pid, engine.state.started, engine.folder.path)
            )
            if alive:
                return False
            engine.gone_at = engine.gone_at or time.monotonic()
            if time.monotonic() - engine.gone_at < process_control.STATUS_SECONDS:
                return False
        self._on_exit(engine, pid)
        return True

    def _on_exit(self, engine: Engine, pid: int | None) -> None:
        use = engine.folder.use()
        code = None if engine.status is None else os.waitstatus_to_exitcode(engine.status)
        asked, engine.process = engine.leaving_since is not None, None
        reason = ""
        if not asked and code != 0:
            reason = msg("it vanished") if code is None else msg("it {how}", how=how_it_left(code))
            if code in (None, -signal.SIGKILL) and engine.oom and (short := engine.oom.verdict()):
                reason = oom_reason(short, "")
            if use and use.pid == pid and use.requests:
                engine.backoff.went_well()
            else:
                engine.backoff.failed()
            engine.reason = reason
        level = logging.WARNING if reason else logging.INFO
        log.log(level, "engine %s has ended: %s", engine.folder.name, reason or "asked to, or idle")
        engine.state = EngineState("ended", engine.state.base, reason or engine.state.reason)
        engine.folder.put_state(engine.state)
