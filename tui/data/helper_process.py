"""A helper process: it takes no time from the screen's threads, and can be ended."""

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping


class HelperProcess:
    """One helper process at a time; asking again ends the one before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._closed = False

    def run(
        self,
        command: list[str],
        stdin: str = "",
        seconds: float | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> tuple[int, str, str] | None:
        """Exit code, stdout, stderr; None if it was ended for another question. Waits: not for the event loop.
        `environ` is added to the screen's own.

        Raises OSError where it cannot be started, and TimeoutExpired, once it was ended, after so many seconds.
        """
        with self._lock:
            self._end()
            if self._closed:
                return None
            process = self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **(environ or {})},
            )
        try:
            output, errors = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        with self._lock:
            if self._process is not process:
                return None
            self._process = None
        return process.returncode, output, errors

    def lines(self, command: list[str]) -> Iterator[str]:
        """What the process writes on stdout, line by line, until it ends. Waits: not for the event loop. Raises OSError
        where it cannot be started."""
        with self._lock:
            self._end()
            if self._closed:
                return
            process = self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        with process:
            assert process.stdout is not None
            yield from process.stdout

    def close(self) -> None:
        """End the process that runs, and start no other."""
        with self._lock:
            self._closed = True
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.kill()
