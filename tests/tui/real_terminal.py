"""A real terminal for tests: the program in a pty, what it draws through pyte, what it writes counted."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

HERE = Path(__file__).resolve().parent


class Terminal:
    """`finetop` on a pty of its own. Use as a context manager: it ends only the process it started."""

    def __init__(self, words: list[str], columns: int, rows: int, **environ: str) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.written = 0
        self.raw = bytearray()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            # The environment as Python knows it: readline, which pytest loads, puts a size of its own beside it.
            own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
            own |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", **environ}
            try:
                os.execve(sys.executable, [sys.executable, *words], own)
            finally:
                os._exit(127)
        self.resize(columns, rows)
        self.status: int | None = None

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def send(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def read(self, seconds: float) -> int:
        """Take what comes within so many seconds; how many bytes that was."""
        before, deadline = self.written, time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self.fd], [], [], left)
            if not ready:
                break
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the program has closed its side
                break
            if not data:
                break
            self.written += len(data)
            self.raw += data
            self._stream.feed(data)
        return self.written - before

    def until(self, condition: Callable[[], object], limit: float = 20.0) -> None:
        """Read until something is true of the picture."""
        deadline = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < deadline, "never came to be:\n" + self.text()
            self.read(0.05)

    def shows(self, text: str, limit: float = 20.0) -> None:
        self.until(lambda: text in self.text(), limit)

    def settled(self, quiet: float = 0.4, limit: float = 20.0) -> int:
        """Read until nothing has come for a while; how many bytes came."""
        before, deadline = self.written, time.monotonic() + limit
        while self.read(quiet):
            assert time.monotonic() < deadline, "it never became quiet"
        return self.written - before

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines()) + "\n"

    def lines(self) -> list[str]:
        """The rows as they are seen; the empty cell behind a wide character is left out."""
        found = []
        for y in range(self.screen.lines):
            row = self.screen.buffer[y]
            found.append("".join(row[x].data for x in range(self.screen.columns)))
        return found

    def left(self, limit: float = 10.0) -> int:
        """Wait for the program to end; its exit code, negative for a signal."""
        deadline = time.monotonic() + limit
        while self.status is None:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, "it does not leave:\n" + self.text()
        return self.status


def golden(terminal: Terminal, name: str, picture: Callable[[Terminal], str]) -> None:
    """Compare with what is on file; UPDATE_GOLDENS=1 takes it again. On a busy machine what is still to be painted may
    come after a pause: some are waited for."""
    path = HERE / "goldens" / name
    for _ in range(5):
        found = picture(terminal)
        if not os.environ.get("UPDATE_GOLDENS") and found == path.read_text("utf-8"):
            return
        terminal.settled(0.6)
    found = picture(terminal)
    if os.environ.get("UPDATE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, "utf-8")
    assert found == path.read_text("utf-8"), f"{path} differs; UPDATE_GOLDENS=1 takes it again:\n{found}"


def opened(terminal: Terminal) -> Terminal:
    """Wait for the first picture, chart and all."""
    terminal.shows("qwen3-8b-sql-lora")
    terminal.settled()
    return terminal


def screen(root: Path, columns: int, rows: int, *words: str, **environ: str) -> Terminal:
    """The screen on a workspace, with the clock and the host of the pictures, and a daemon's lock held beside it."""
    return Terminal([str(HERE / "frozen.py"), "--workspace", str(root), *words], columns, rows, **environ)
