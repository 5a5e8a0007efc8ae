"""What ends the daemon's sleep between two rounds."""

import contextlib
import os
import signal


class Wake:
    """A pipe that makes `select` return when a signal arrives: the end of a child, or a request to leave."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()

    def fileno(self) -> int:
        return self._read

    def install(self) -> None:
        """Let the interpreter write into it on every signal that has a handler. Main thread only."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def now(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._write, b".")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 512):
                pass


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
