"""A lock that says that a process lives: held for as long as it does, however it ends, with its pid in the file."""

import fcntl
import os
import time
from pathlib import Path

from engine.base.worker_process import is_held

_POLL_SECONDS = 0.02
PATIENCE_SECONDS = 1.0
"""A look at the lock holds it shared for some microseconds; who wants it for good tries again for so long."""


def take(path: Path) -> int | None:
    """The descriptor that holds the lock, our pid written into the file; None if another has it.

    Never inherited by children, which would stand for us. Raises OSError where the file cannot be written or locked.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if not is_held(error):
                os.close(descriptor)
                raise
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
        time.sleep(_POLL_SECONDS)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def holder(path: Path) -> int | None:
    """The pid of the process that holds the lock: None if nobody does, 0 where the number is not known (yet)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError as error:
        if not is_held(error):
            return None
        text = os.pread(descriptor, 32, 0)
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
