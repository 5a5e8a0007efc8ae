"""A program in a terminal of its own, measured from the terminal's side: what came, when, and what it looked like.

The terminal answers what programs ask of terminals (colours, attributes, modes), as xterm does, because some wait for
that. Bytes get their time when they are read; the picture is made from them (by pyte) afterwards, piece by piece, so
that drawing it is not taken for the program's slowness.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyte

COLUMNS, ROWS = 120, 36
_ASKED = re.compile(
    rb"\x1b\](?P<colour>1[01]);\?(?:\x07|\x1b\\)|\x1b\[(?P<place>6n)|\x1b\[(?P<attributes>0?c)"
    rb"|\x1b\[\?(?P<mode>\d+)\$p|\x1b\[>(?P<version>0?q)|\x1b\[\?(?P<kitty>u)"
)


@dataclass(frozen=True)
class Use:
    """What the program's processes have used, all together."""

    cpu_seconds: float
    peak_bytes: int
    """The kernel's record of each one's resident memory (VmHWM)."""


class Terminal:
    """Use as a context manager: it ends the process it started, and that one's children."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], columns: int = COLUMNS, rows: int = ROWS):
        self.columns, self.rows = columns, rows
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._waiting: list[tuple[float, bytes]] = []
        self._tail = b""
        self.written = 0
        self.last_byte = 0.0
        """When the last byte came (monotonic)."""
        own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        own |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", **environ}
        self.started = time.monotonic()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.execve(command[0], list(command), own)
            finally:
                os._exit(127)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = psutil.Process(self.pid)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exception: object) -> None:
        processes = [self._process, *self._children()]
        for process in processes:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        os.close(self.fd)
        os.waitpid(self.pid, 0)

    def send(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def read(self, seconds: float) -> int:
        """Take the next piece, waiting for it so long; how many bytes it had. 0: nothing came."""
        ready, _, _ = select.select([self.fd], [], [], max(0.0, seconds))
        if not ready:
            return 0
        try:
            data = os.read(self.fd, 1 << 20)
        except OSError:
            raise RuntimeError("the program has left:\n" + self.text()) from None
        self.last_byte = time.monotonic()
        self.written += len(data)
        self._waiting.append((self.last_byte, data))
        self._answer(data)
        return len(data)

    def watch(self, seconds: float) -> int:
        """Take all that comes within so many seconds; how many bytes that was."""
        before, end = self.written, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)
        return self.written - before

    def quiet(self, seconds: float, limit: float = 60.0) -> float:
        """Read until nothing has come for so long; when the last byte came."""
        end = time.monotonic() + limit
        while time.monotonic() < end and self.read(seconds):
            pass
        return self.last_byte

    def rests(self, condition: Callable[[list[str]], object], quiet: float = 0.5, limit: float = 60.0) -> float:
        """Read until something is true of the picture and nothing has come for a while, drawing nothing meanwhile; when
        the piece came that made it true. `last_byte` is then the end of it all."""
        end = time.monotonic() + limit
        while True:
            self.quiet(quiet)
            if at := self.seen(condition):
                self.lines()
                return at
            if time.monotonic() > end:
                raise RuntimeError("never came to be:\n" + self.text())

    def when(self, condition: Callable[[list[str]], object], limit: float = 60.0) -> float:
        """Read until something is true of the picture's lines; when the piece came that made it so."""
        end = time.monotonic() + limit
        while not (at := self.seen(condition)):
            if time.monotonic() > end:
                raise RuntimeError("never came to be:\n" + self.text())
            self.read(0.2)
        return at

    def seen(self, condition: Callable[[list[str]], object]) -> float:
        """Draw what was read, piece by piece, until something is true of the picture: when that piece came, or 0."""
        while self._waiting:
            at, data = self._waiting.pop(0)
            self._stream.feed(data)
            if condition(self._display()):
                return at
        return 0.0

    def lines(self) -> list[str]:
        """The picture as of all that was read."""
        while self._waiting:
            self._stream.feed(self._waiting.pop(0)[1])
        return self._display()

    def _display(self) -> list[str]:
        # Not pyte's `display`: it cannot draw a wide character of which only one half has been written over yet.
        buffer = self._screen.buffer
        return ["".join(buffer[y][x].data for x in range(self.columns)) for y in range(self.rows)]

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines())

    def use(self) -> Use:
        cpu, peak = 0.0, 0
        for process in (self._process, *self._children()):
            try:
                # The process's own clock, in nanoseconds (clock_getcpuclockid(3) makes the number so). /proc/<pid>/stat
                # counts in hundredths of a second, by who runs when the clock ticks: too coarse for half a per cent.
                cpu += time.clock_gettime(~process.pid << 3 | 2)
                status = Path(f"/proc/{process.pid}/status").read_text()
            except (psutil.NoSuchProcess, OSError):
                continue
            peak += next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), 0)
        return Use(cpu, peak)

    def _children(self) -> list[psutil.Process]:
        try:
            return self._process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _answer(self, data: bytes) -> None:
        """What xterm would say: light grey on black, no kitty keyboard, mode 2026 known."""
        data = self._tail + data
        end = 0
        for asked in _ASKED.finditer(data):
            end = asked.end()
            if asked["colour"]:
                shade = b"d0d0" if asked["colour"] == b"10" else b"1010"
                reply = b"\x1b]%b;rgb:%b/%b/%b\x1b\\" % (asked["colour"], shade, shade, shade)
            elif asked["place"]:
                reply = b"\x1b[1;1R"
            elif asked["attributes"]:
                reply = b"\x1b[?64;1;2;6;9;15;18;21;22c"
            elif asked["mode"]:
                reply = b"\x1b[?%b;%d$y" % (asked["mode"], 2 if asked["mode"] == b"2026" else 0)
            elif asked["version"]:
                reply = b"\x1bP>|XTerm(390)\x1b\\"
            else:
                continue
            os.write(self.fd, reply)
        self._tail = data[max(end, len(data) - 16) :]
