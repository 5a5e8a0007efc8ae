"""The tab Log: what the worker printed, and between its lines what became of the run."""

import re
from bisect import bisect_left
from collections.abc import Sequence

from engine.base.messages import msg
from engine.present import numbers
from engine.present.text import one_line, wrap
from tui.data.log_reader import Tail
from tui.render.line import Line
from tui.render.log_markers import LogMarker
from tui.render.text_tabs import Sheet


class LogSheet(Sheet):
    """The end of a log, or, of a long one, the part that somebody went to."""

    def __init__(self) -> None:
        super().__init__()
        self.follow = True
        self.wraps = True
        self.tail: Tail | None = None
        """The end, as it grows."""
        self.part: Tail | None = None
        """A part of a long log that is shown in its place."""
        self.pattern: re.Pattern[str] | None = None
        """What is searched for."""
        self.search_text = ""
        self._turns: Sequence[LogMarker] = ()
        self._offsets: list[int] = []
        """At which byte each of the lines begins; of a marker, where it stands."""

    def take(self, tail: Tail, turns: Sequence[LogMarker]) -> bool:
        """The end as it is now; False if nothing changed."""
        if tail is self.tail and turns == self._turns:
            return False
        self.tail, self._turns = tail, turns
        if self.part is None:
            self._arrange(tail)
        return True

    def show_part(self, part: Tail, offset: int) -> None:
        """Show another part, from the line at that byte on."""
        self.part, self.follow = part, False
        self._arrange(part)
        self.top = min(bisect_left(self._offsets, offset), max(0, len(self._offsets) - 1))
        self.left = 0

    def follow_end(self, follow: bool) -> None:
        """Stay at the end, or no longer."""
        self.follow = follow
        if follow and self.part is not None:
            self.part = None
            if self.tail is not None:
                self._arrange(self.tail)

    def _arrange(self, tail: Tail) -> None:
        printed, starts = tail.shown(), [*tail.starts, tail.offset - len(tail.unfinished)]
        lines: list[str | Line] = []
        self._offsets = []
        index = 0
        for turn in self._turns:
            to = max(index, tail.line_at(turn.log_bytes))
            if tail is self.part and not tail.skipped <= turn.log_bytes <= tail.offset:
                continue  # of another part
            lines += [*printed[index:to], turn.line]
            self._offsets += [*starts[index:to], starts[min(to, len(starts) - 1)]]
            index = to
        self._lines = [*lines, *printed[index:]]
        self._offsets += starts[index : len(printed)]

    @property
    def offset(self) -> int:
        """At which byte of the log the first line in sight begins."""
        return self._offsets[self.top] if self.top < len(self._offsets) else 0

    @property
    def is_part(self) -> bool:
        """Whether the log is longer than what is held of it."""
        shown = self.part or self.tail
        return shown is not None and bool(shown.skipped or shown.beyond)

    def wanted_part(self, by: int) -> int | None:
        """The byte around which to read on when scrolled by so many lines; None while there is enough."""
        shown = self.part or self.tail
        if shown is None or not self._offsets:
            return None
        if by < 0 and shown.skipped and self.top + by <= 0:
            return self._offsets[0]
        if by > 0 and shown.beyond and self.top + by >= self._most:
            return self.offset
        return None

    def search(self, text: str) -> int:
        """Look for a text, case ignored unless it has capitals; how many of the lines held here hold it."""
        self.search_text = text
        flags = 0 if text != text.lower() else re.IGNORECASE
        self.pattern = re.compile(re.escape(text), flags) if text else None
        return sum(self._matches(line) for line in self._lines) if text else 0

    def go_to_match(self, direction: int, also_here: bool = False) -> bool:
        """Go to the next line that holds the text, around the end; False if there is none."""
        amount = len(self._lines)
        start = self.top + (0 if also_here else direction)
        for step in range(amount):
            index = (start + direction * step) % amount
            if self._matches(self._lines[index]):
                self.follow = False
                self.top = index
                self.left = 0
                return True
        return False

    def _matches(self, item: str | Line) -> bool:
        return self.pattern is not None and isinstance(item, str) and self.pattern.search(item) is not None

    def lines_of(self, item: str | Line, width: int) -> list[Line]:
        """A line of the log with the matches of a search marked, wrapped or moved sideways; or a marker."""
        if not isinstance(item, str):
            return [self.line(item, width)]
        text = one_line(item)
        if self.wraps:
            return [self._marked(part) for part in wrap(text, width)]
        return [self.line(self._marked(text), width)]

    def _marked(self, text: str) -> Line:
        spans: Line = []
        index = 0
        for match in self.pattern.finditer(text) if self.pattern is not None else ():
            spans += [(text[index : match.start()], "text"), (match.group(), "match")]
            index = match.end()
        return [*spans, (text[index:], "text")]

    def body(self, width: int, height: int) -> list[Line]:
        if self.tail is None:
            return [[(" reading the log", "dim")]]
        words = self.tail.problem
        if not words and not self.tail.shown():
            words = "nothing was printed: a log holds warnings and errors; steps are in the charts, the rest in Events"
        below: list[Line] = [[(" " + part, "dim")] for part in wrap(words, width - 1)] if words else []
        return [*super().body(width, max(1, height - len(below))), *below]

    def where(self) -> str:
        shown = self.part or self.tail
        parts = [super().where()]
        if shown is not None and self.is_part:
            parts.append(
                msg(
                    "{start} to {end} of {size}",
                    start=numbers.size(shown.skipped),
                    end=numbers.size(shown.offset),
                    size=numbers.size(shown.offset + shown.beyond),
                )
            )
        parts.append("follows" if self.follow else "f follows")
        return " · ".join(filter(None, parts))
