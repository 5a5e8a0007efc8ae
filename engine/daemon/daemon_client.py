"""Asking for the daemon from outside: is one running, start one, end it, keep one from starting.

The lock is the only proof of a daemon: it is held as long as the process lives, however that ends. What the daemon
writes about itself (`daemon.json`) is for people to look at. Standard library only, since `finetop add` calls `ensure`
and has 0.35 s in all.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base import process_lock
from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.worker_process import worker_environment
from engine.base.workspace import Workspace

_POLL_SECONDS = 0.02
STALE_SECONDS = 10.0
"""The daemon writes about itself every second, and waits 2 s for a locked database."""


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """What is known about the daemon of a workspace. All but `running` and `pid` are None when none runs."""

    running: bool
    pid: int | None = None
    started: float | None = None
    """Epoch seconds."""
    beat: float | None = None
    """When it last wrote about itself; older than a few seconds: it is stuck, or the database or disk is."""
    warm: str | None = None
    """'ready', 'loading', 'idle' or 'off: <reason>': whether runs are forked from a process with torch loaded."""
    cpu_slots: int | None = None
    """Runs without a GPU that may train at the same time."""
    version: str | None = None

    @property
    def silent_seconds(self) -> float:
        """For how long it has published nothing where it should have; 0 while it does."""
        silent = 0.0 if self.beat is None else time.time() - self.beat
        return silent if silent > STALE_SECONDS else 0.0


def status(workspace: Workspace) -> DaemonStatus:
    """Whether a daemon holds the lock, and what it publishes about itself."""
    holder = process_lock.holder(workspace.daemon_lock)
    if holder is None:
        return DaemonStatus(False)
    state = _published_state(workspace)
    if state.get("pid") != holder:
        state = {}  # of the one before it
    return DaemonStatus(
        True,
        holder or None,
        state.get("started"),
        state.get("t"),
        state.get("warm"),
        state.get("cpu_slots"),
        state.get("version"),
    )


def ensure(workspace: Workspace) -> bool:
    """Start a daemon unless one runs; True if one was started. Returns at once; of two that start, one leaves again.

    None is started where FINETOP_NO_DAEMON is set: queue now, and start it yourself (`finetop daemon start`).
    """
    if os.environ.get("FINETOP_NO_DAEMON") or process_lock.holder(workspace.daemon_lock) is not None:
        return False
    start(workspace)
    return True


def start(workspace: Workspace, *options: str) -> int:
    """Start `python -m engine.daemon` in a session of its own, with its output in the log; its pid."""
    make_private(workspace)
    try:
        log = open(workspace.daemon_log, "ab", opener=_private_file)  # noqa: SIM115, closed below
    except OSError as error:
        raise _unwritable(workspace.daemon_log, error) from None
    with log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.daemon", str(workspace.root), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=workspace.root,
            env=worker_environment(),
            start_new_session=True,
        )
    process.returncode = 0  # nobody waits for it: it outlives us
    return process.pid


def stop(workspace: Workspace, seconds: float = 10.0) -> bool:
    """Ask the daemon to leave, its runs going on, and wait so long. True if none is left."""
    asked_pid = process_lock.holder(workspace.daemon_lock)
    if asked_pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(asked_pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while (holder := process_lock.holder(workspace.daemon_lock)) is not None and holder == asked_pid:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return holder is None


@contextlib.contextmanager
def exclusive(workspace: Workspace) -> Iterator[None]:
    """Be in the daemon's place, so that none runs meanwhile. Raises EngineError while one does."""
    lock = take_lock(workspace)
    if lock is None:
        holder = process_lock.holder(workspace.daemon_lock)
        raise EngineError(
            msg("the daemon of {root} is running (pid {pid})", root=workspace.root, pid=holder or "unknown"),
            "End it with `finetop daemon stop`; its runs go on, and the next daemon finds them.",
        )
    try:
        yield
    finally:
        os.close(lock)


def take_lock(workspace: Workspace) -> int | None:
    """The descriptor that holds the daemon's lock, our pid written into the file; None if another has it.

    Never inherited by children: a worker that held it would stand for a daemon.
    """
    make_private(workspace)
    try:
        return process_lock.take(workspace.daemon_lock)
    except OSError as error:
        if error.filename is not None:  # of opening it
            raise _unwritable(workspace.daemon_lock, error) from None
        raise EngineError(
            msg(
                "{daemon_lock} cannot be locked: {strerror}",
                daemon_lock=workspace.daemon_lock,
                strerror=error.strerror,
            ),
            "The workspace must lie on a file system that has locks; not every network drive does.",
        ) from None


def make_private(workspace: Workspace) -> None:
    """The workspace's `.finetop`, which nobody else can read."""
    try:
        workspace.private.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            msg("{private} cannot be made: {strerror}", private=workspace.private, strerror=error.strerror),
            "Choose another folder with --workspace DIR.",
        ) from None


def _unwritable(path: Path, error: OSError) -> EngineError:
    return EngineError(
        msg("no daemon can be started: {path} cannot be written: {strerror}", path=path, strerror=error.strerror),
        "What is queued waits until one is: see to that folder, then `finetop daemon start`.",
    )


def _published_state(workspace: Workspace) -> dict[str, Any]:
    try:
        content = json.loads(workspace.daemon_state.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _private_file(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
