"""Starting a worker: a process of its own, in its own session, with its output in the run's log."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from engine.base.control_groups import ControlGroup, cpu_quota, groups_of
from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import LOG, PACKAGE_ROOT

_LOCK_ATTEMPTS = 4
"""Who only looks whether there is a worker (`worker_alive`) holds the lock for some microseconds."""
RUN, ENGINE = "engine.worker", "engine.worker.answer"
"""What a worker does, by the module it is started as: it trains a run, or answers for the server."""
DONE, STOPPED = 0, 3
"""How a worker leaves: to its end, or asked to stop and saved. 1: the run failed, 2: wrong input
(engine.base.errors)."""


def worker_command(*arguments: str, module: str = RUN) -> list[str]:
    # -P: a folder called engine/ where the user happens to stand must not be taken for ours.
    return [sys.executable, "-P", "-m", module, *arguments]


def worker_environment() -> dict[str, str]:
    """Ours, in which a Python elsewhere finds the engine where we did."""
    inherited = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{PACKAGE_ROOT}{os.pathsep}{inherited}" if inherited else str(PACKAGE_ROOT)}


def spawn_worker(
    folder: Path,
    words: Sequence[str] = ("--from", "latest"),
    *,
    module: str = RUN,
    command: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen:
    """Start training the run in `folder`. The worker outlives the terminal and whoever started it.

    `command` stands in for `python -m MODULE` and takes the same words. Raises InputError while another worker of that
    folder is alive.
    """
    words = [str(folder), *words]
    with locked_log(folder) as log:
        return subprocess.Popen(
            [*command, *words] if command else worker_command(*words, module=module),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=worker_environment() if environment is None else environment,
            start_new_session=True,
        )


def locked_log(folder: Path) -> BinaryIO:
    """The run's log, open for appending and locked: who inherits it holds the lock until its last process is gone.

    Raises InputError while another worker of that run is alive.
    """
    log = open(folder / LOG, "ab")  # noqa: SIM115, the caller closes it
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return log
        except OSError as error:
            if not is_held(error):
                return log  # a file system without locks, such as some network drives
        if attempt:
            time.sleep(0.01)
    log.close()
    raise InputError(
        msg("run {folder_name} is being trained already", folder_name=folder.name),
        msg("Its worker goes on in the background; see {log_name}", log_name=log.name),
    )


def how_it_left(code: int) -> str:
    """What a process that nobody has heard from did, by its exit code: `was killed by SIGKILL`, `left with code 3`."""
    if code >= 0:
        return msg("left with code {code}", code=code)
    return msg("was killed by {code}", code=signal_name(-code, f"signal {-code}"))


def worker_alive(folder: Path) -> bool:
    """Whether a worker has this run, whoever started it: it holds the lock on its log."""
    try:
        with open(folder / LOG, "rb") as log:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return is_held(error)
    return False


def signal_name(number: int, unknown: str = "unknown") -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return unknown


def is_held(error: OSError) -> bool:
    """Whether a lock was not given because another process has it."""
    return error.errno in (errno.EAGAIN, errno.EACCES)


def started_at(pid: int) -> float | None:
    """When a process started, in epoch seconds: with its pid it differs from a later one of the same number."""
    import psutil  # 20 ms

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def cores(groups: Sequence[ControlGroup] | None = None) -> int:
    """Those that this process may use, by its affinity and its control groups' quotas.

    Of a quota of 1.5 processors one: of two threads that wait for each other in every sum, one would be held back.
    `groups`: those of the controller `cpu`, where they are known.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(groups_of("cpu") if groups is None else groups)
    return count if quota is None else max(1, min(count, int(quota)))
