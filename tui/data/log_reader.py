"""The end of a log file, read piece by piece as it grows. Runs on the feed's thread."""

import os
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from engine.base.log_tail import last_state

KEPT_BYTES = 2_000_000
"""As much of the end as is shown: some 20,000 lines, decoded in 10 ms."""


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
    return Tail(earlier.path, lines, starts, unfinished, earlier.offset + len(data), skipped, earlier.inode)
