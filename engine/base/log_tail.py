"""The end of a log: read from its end, since a log may be long, and its lines as a terminal may show them."""

from pathlib import Path
from typing import BinaryIO

from engine.base.escape import escape

PIECE = 4_000
"""Characters of one line that are shown: a log may hold a megabyte without a line break."""
_BLOCK = 1 << 16


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file as written; 0: all of them. Nothing of one that cannot be read."""
    try:
        with open(path, "rb") as file:
            return end_of(file, lines)
    except OSError:
        return []


def last_lines(path: Path, count: int = 40, limit: int = 16_384) -> str:
    """The end of a log as a terminal would have been left with it, of at most `limit` bytes; empty if unreadable."""
    try:
        with open(path, "rb") as file:
            lines = end_of(file, count, limit)
    except OSError:
        return ""
    return "\n".join(map(last_state, lines)).strip("\n")


def end_of(file: BinaryIO, lines: int, limit: int | None = None) -> list[str]:
    """The last lines of an open file, from at most `limit` bytes of it; 0 lines: all. Raises OSError."""
    position = file.seek(0, 2)
    start = 0 if limit is None else max(0, position - limit)
    data = b""
    while position > start and (lines == 0 or data.count(b"\n") <= lines):
        step = min(_BLOCK, position - start)
        position -= step
        file.seek(position)
        data = file.read(step) + data
    every_line = data.decode("utf-8", "replace").removesuffix("\n").split("\n") if data else []
    return every_line[-lines:] if lines else every_line


def last_state(line: str) -> str:
    """What a terminal would have been left with: progress bars write over themselves by carriage returns."""
    return line.rstrip("\r").rpartition("\r")[2] if "\r" in line else line


def log_line(line: str) -> str:
    """A line's last state, escaped, and of a very long one the beginning."""
    return escape(last_state(line)[:PIECE].expandtabs(), keep="\n")
