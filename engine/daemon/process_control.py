"""Processes as the daemon sees them: which is which, who is gone, how it ended.

A process is known by its pid and its start time, since pids are used again. psutil counts start times from the clock,
which may be set; so a worker whose time does not fit is still believed when the lock on its run's log is held.
"""

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

import psutil

from engine.base.atomic_files import DISK_FULL
from engine.base.clock import uptime
from engine.base.worker_process import worker_alive
from engine.base.workspace import LOG

START_TOLERANCE_SECONDS = 2.0
"""psutil adds the boot time, which moves when the clock is set; no kernel hands a pid out again this soon."""
STATUS_SECONDS = 1.0
"""How long the exit code of a worker that is gone may take to arrive through the warm process."""
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> bool:
    """Become the parent of workers whose own parent, the warm process, has died, so that their end can be waited for.

    False where the system cannot (Linux only): their exit code is then unknown, and the journal tells alone.
    """
    try:
        return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False


def reap() -> dict[int, int]:
    """The children that have ended since the last call: pid to wait status."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended[pid] = status
    return ended


def is_alive(pid: int, started: float | None, folder: Path) -> bool:
    """Whether this very worker is there. A zombie is not: nothing of it but its exit code is left."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if started is None or abs(process.create_time() - started) <= START_TOLERANCE_SECONDS:
            return True
        return os.getsid(pid) == pid and worker_alive(folder)
    except (psutil.Error, OSError):
        return False


def is_suspended(pid: int) -> bool:
    """Stopped by SIGSTOP or a debugger: silent, and neither dead nor hung."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def send_signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_session(leader: int) -> int:
    """SIGKILL for every process of the session a worker leads, the leader last; how many there were."""
    members = [pid for pid in psutil.pids() if pid != leader and _session(pid) == leader]
    if _session(leader) == leader:
        members.append(leader)
    for pid in members:
        send_signal(pid, signal.SIGKILL)
    return len(members)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def has_log(pid: int, folder: Path) -> bool:
    """Whether a process leads its session and writes into the run's log, as workers do. Linux only."""
    try:
        return os.getsid(pid) == pid and os.path.samefile(f"/proc/{pid}/fd/1", folder / LOG)
    except OSError:
        return False


def boot_id() -> str:
    """Names the time since the machine was started, whatever its clock says; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def clock_offset() -> float:
    """What the clock says less the time since the machine was started: it changes only when the clock is set.

    The time asleep counts in both, where the system can tell (Linux); elsewhere waking up looks like a clock set.
    """
    return time.time() - uptime()


def rebooted_since(moment: float) -> bool:
    return psutil.boot_time() > moment + START_TOLERANCE_SECONDS


def disk_is_full(folder: Path) -> bool:
    """Whether a few bytes can no longer be written there; quotas show in no other way."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(bytes(4096))
    except OSError as error:
        return error.errno in DISK_FULL
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return False
