"""The end of a log file, read piece by piece as it grows. Runs on the feed's thread."""

import os
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

KEPT_BYTES = 2_000_000
"""As much of the end as is shown: some 20,000 lines, decoded in 10 ms."""


@dataclass(frozen=True, slots=True)
class Tail:
    path: Path
    lines: tuple[str, ...] = ()
    """As written; what they hold may be hostile and is made visible where it is shown."""
    starts: tuple[int, ...] = ()
    """At which byte of the file each line begins."""
    rest: bytes = b""
    """The last line, as long as it has no line break; its last character may be half there."""
    offset: int = 0
    """Read up to here."""
    skipped: int = 0
    """Bytes before the first line."""
    inode: int = 0
    problem: str = ""

    def shown(self) -> tuple[str, ...]:
        """All lines, the unfinished last one too."""
        return (*self.lines, _after_return(self.rest.decode("utf-8", "replace"))) if self.rest else self.lines

    def line_at(self, offset: float) -> int:
        """How many of the lines shown begin before that byte of the file."""
        return bisect_left(self.starts, offset) + (bool(self.rest) and self.offset - len(self.rest) < offset)


def read(path: Path, before: Tail | None = None) -> Tail:
    """The log's end now; the same object as `before` if nothing was added."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if before is not None and before.path == path and before.inode == status.st_ino and not before.problem:
                if status.st_size == before.offset:
                    return before
                if before.offset < status.st_size < before.offset + KEPT_BYTES:
                    file.seek(before.offset)
                    return _joined(before, file.read(status.st_size - before.offset))
            skipped = max(0, status.st_size - KEPT_BYTES)
            file.seek(skipped)
            data = file.read(KEPT_BYTES)
            start = data.find(b"\n") + 1 if skipped else 0
            empty = Tail(path, offset=skipped + start, skipped=skipped + start, inode=status.st_ino)
            return _joined(empty, data[start:])
    except FileNotFoundError:
        return Tail(path, problem="there is no log: the run has not started, or its folder is gone")
    except OSError as error:
        return Tail(path, problem=f"{path}: {error.strerror}")


def _joined(before: Tail, data: bytes) -> Tail:
    whole, ended, rest = (before.rest + data).rpartition(b"\n")
    lines, starts, skipped = before.lines, before.starts, before.skipped
    if ended:
        lines += tuple(_after_return(line) for line in whole.decode("utf-8", "replace").split("\n"))
        lengths = (len(line) + 1 for line in whole.split(b"\n"))
        starts += tuple(accumulate(lengths, initial=before.offset - len(before.rest)))[:-1]
    if len(lines) > 50_000:  # a long visit: let the beginning go
        lines, starts = lines[25_000:], starts[25_000:]
        skipped = starts[0]
    return Tail(before.path, lines, starts, rest, before.offset + len(data), skipped, before.inode)


def _after_return(line: str) -> str:
    """A progress bar writes over itself: only its last state is kept."""
    return line.rstrip("\r").rpartition("\r")[2] if "\r" in line else line
