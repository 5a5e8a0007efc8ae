"""Starting a worker: a process of its own, in its own session, with its output in the run's log."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from engine.errors import InputError
from engine.home import LOG, PACKAGE_ROOT

DONE, STOPPED = 0, 3
"""How a worker leaves: to its end, or asked to stop and saved. 1: the run failed, 2: wrong input (engine.errors)."""


def worker_command(*arguments: str) -> list[str]:
    # -P: a folder called engine/ where the user happens to stand must not be taken for ours.
    return [sys.executable, "-P", "-m", "engine.worker", *arguments]


def worker_environment() -> dict[str, str]:
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{PACKAGE_ROOT}{os.pathsep}{before}" if before else str(PACKAGE_ROOT)}


def spawn_worker(folder: Path, resume_from: str = "latest") -> subprocess.Popen:
    """Start training the run in `folder`. The worker outlives the terminal and whoever started it.

    Raises InputError while another worker of that run is alive.
    """
    with open(folder / LOG, "ab") as log:
        _claim(log, folder)
        return subprocess.Popen(
            worker_command(str(folder), "--from", resume_from),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=worker_environment(),
            start_new_session=True,
        )


def _claim(log: BinaryIO, folder: Path) -> None:
    """Lock the log. The worker inherits the lock with its stdout and holds it until its last process is gone."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return  # a file system without locks, such as some network drives
        raise InputError(
            f"run {folder.name} is being trained already", f"Its worker goes on in the background; see {log.name}"
        ) from None
