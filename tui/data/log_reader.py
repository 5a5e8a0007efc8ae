"""The end of a log file, read piece by piece as it grows. Runs on the feed's thread."""

import os
import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from engine.base.log_tail import last_state

KEPT_BYTES = 2_000_000
"""As much of the end as is shown: some 20,000 lines, decoded in 10 ms."""

_PIECE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Tail:
    path: Path
    lines: tuple[str, ...] = ()
    """As written; what they hold may be hostile and is made visible where it is shown."""
    starts: tuple[int, ...] = ()
    """At which byte of the file each line begins."""
    unfinished: bytes = b""
    """The last line, as long as it has no line break; its last character may be half there."""
    offset: int = 0
    """Read up to here."""
    skipped: int = 0
    """Bytes before the first line."""
    inode: int = 0
    beyond: int = 0
    """Bytes after the last line, of a part that does not reach the end."""
    problem: str = ""

    def shown(self) -> tuple[str, ...]:
        """All lines, the unfinished last one too."""
        return (*self.lines, last_state(self.unfinished.decode("utf-8", "replace"))) if self.unfinished else self.lines

    def line_at(self, offset: float) -> int:
        """How many of the lines shown begin earlier that byte of the file."""
        return bisect_left(self.starts, offset) + (
            bool(self.unfinished) and self.offset - len(self.unfinished) < offset
        )


def read(path: Path, earlier: Tail | None = None) -> Tail:
    """The log's end now; the same object as `earlier` if nothing was added."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if earlier is not None and earlier.path == path and earlier.inode == status.st_ino and not earlier.problem:
                if status.st_size == earlier.offset:
                    return earlier
                if earlier.offset < status.st_size < earlier.offset + KEPT_BYTES:
                    file.seek(earlier.offset)
                    return _joined(earlier, file.read(status.st_size - earlier.offset))
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


def read_around(path: Path, offset: int) -> Tail:
    """The part of a log in whose middle a byte lies, in whole lines: as much as is held of its end."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            start = max(0, min(offset - KEPT_BYTES // 2, status.st_size - KEPT_BYTES))
            file.seek(start)
            data = file.read(KEPT_BYTES)
            first = data.find(b"\n") + 1 if start else 0
            last = len(data) if start + len(data) >= status.st_size else data.rfind(b"\n") + 1
            if last <= first:  # one line that is longer than all of it
                first, last = 0, len(data)
            begin = start + first
            empty = Tail(path, offset=begin, skipped=begin, inode=status.st_ino, beyond=status.st_size - start - last)
            return _joined(empty, data[first:last])
    except OSError as error:
        return Tail(path, problem=f"{path}: {error.strerror}")


@dataclass(frozen=True, slots=True)
class SearchHit:
    """What a search through all of a log came to."""

    lines: int = 0
    """How many lines hold the text."""
    offset: int | None = None
    """Where the one to go to begins."""


def find(path: Path, pattern: re.Pattern[str], offset: int, direction: int) -> SearchHit:
    """Search a log of any length, a piece at a time: the first line beyond `offset` that matches, or (-1) the last
    before it; around the end where there is none."""
    count, first, last, above, below = 0, None, None, None, None
    begin = 0
    with open(path, "rb") as file:
        while piece := file.readlines(_PIECE_BYTES):
            # Most pieces hold nothing, which one search through the whole of them tells.
            if pattern.search(b"".join(piece).decode("utf-8", "replace")):
                start = begin
                for line in piece:
                    if pattern.search(last_state(line.rstrip(b"\n").decode("utf-8", "replace"))):
                        count += 1
                        first, last = start if first is None else first, start
                        above = start if start < offset else above
                        below = start if below is None and start > offset else below
                    start += len(line)
            begin += sum(map(len, piece))
    nearest = (first if below is None else below) if direction > 0 else (last if above is None else above)
    return SearchHit(count, nearest)


def _joined(earlier: Tail, data: bytes) -> Tail:
    whole, ended, unfinished = (earlier.unfinished + data).rpartition(b"\n")
    lines, starts, skipped = earlier.lines, earlier.starts, earlier.skipped
    if ended:
        lines += tuple(last_state(line) for line in whole.decode("utf-8", "replace").split("\n"))
        lengths = (len(line) + 1 for line in whole.split(b"\n"))
        starts += tuple(accumulate(lengths, initial=earlier.offset - len(earlier.unfinished)))[:-1]
    if len(lines) > 50_000:  # a long visit: let the beginning go
        lines, starts = lines[25_000:], starts[25_000:]
        skipped = starts[0]
    end = earlier.offset + len(data)
    return Tail(earlier.path, lines, starts, unfinished, end, skipped, earlier.inode, earlier.beyond)
