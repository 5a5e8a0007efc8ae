"""What the tabs of the selected run hold apart from charts: log, settings, events, as lines that scroll."""

import re
from collections.abc import Sequence
from typing import Any

from engine.base.messages import msg
from engine.present import event_text, numbers
from engine.present.text import cells, fit, one_line, wrap
from engine.store.run_records import Event, Run, SettingValue
from tui.data.log_reader import Tail
from tui.render.line import Line, crop_line
from tui.render.log_markers import LogMarker


class Sheet:
    """Lines with a place from which they are shown. `follow` keeps to the end."""

    def __init__(self) -> None:
        self.top = 0
        self.left = 0
        self.follow = False
        self._lines: Sequence[Any] = ()
        self._height = 1

    def line(self, item: Any, width: int) -> Line:
        """A line as it is drawn, moved sideways."""
        return crop_line(item, self.left, width) if self.left else item

    def body(self, width: int, height: int) -> list[Line]:
        """The lines in sight."""
        self._height = max(1, height)
        most = max(0, len(self._lines) - height)
        self.top = most if self.follow else max(0, min(self.top, most))
        return [self.line(item, width) for item in self._lines[self.top : self.top + height]]

    def scroll(self, by: int) -> None:
        """Move by lines; scrolling up ends following."""
        most = max(0, len(self._lines) - self._height)
        self.top = max(0, min(self.top + by, most))
        self.follow = self.follow and by > 0

    def page(self) -> int:
        """How many lines a page is."""
        return max(1, self._height - 1)

    def sideways(self, by: int) -> None:
        """Move by cells."""
        self.left = max(0, self.left + by)

    def where(self) -> str:
        """Which part is shown, for the frame."""
        if len(self._lines) <= self._height:
            return ""
        return f"{self.top + 1}-{min(len(self._lines), self.top + self._height)} of {numbers.count(len(self._lines))}"


class LogSheet(Sheet):
    """What the worker printed, and between it what became of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.follow = True
        self.tail: Tail | None = None
        self.search_text = ""
        self._turns: Sequence[LogMarker] = ()
        self._pattern: re.Pattern[str] | None = None

    def take(self, tail: Tail, turns: Sequence[LogMarker]) -> bool:
        """False if nothing changed."""
        if tail is self.tail and turns == self._turns:
            return False
        self.tail, self._turns = tail, turns
        printed = tail.shown()
        lines: list[str | Line] = []
        at = 0
        for turn in turns:
            index = max(at, tail.line_at(turn.log_bytes))
            lines += [*printed[at:index], turn.line]
            at = index
        self._lines = [*lines, *printed[at:]]
        return True

    def search(self, text: str) -> int:
        """Look for a text, case ignored unless it has capitals; how many lines hold it."""
        self.search_text = text
        flags = 0 if text != text.lower() else re.IGNORECASE
        self._pattern = re.compile(re.escape(text), flags) if text else None
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
        return self._pattern is not None and isinstance(item, str) and self._pattern.search(item) is not None

    def line(self, item: str | Line, width: int) -> Line:
        """A line of the log with the matches of a search marked, or a marker."""
        if not isinstance(item, str):
            return super().line(item, width)
        text = one_line(item)
        spans: Line = []
        at = 0
        for match in self._pattern.finditer(text) if self._pattern is not None else ():
            spans += [(text[at : match.start()], "text"), (match.group(), "match")]
            at = match.end()
        spans.append((text[at:], "text"))
        return super().line(spans, width)

    def body(self, width: int, height: int) -> list[Line]:
        if self.tail is None:
            return [[(" reading the log", "dim")]]
        words = self.tail.problem
        if not words and not self.tail.shown():
            words = "nothing was printed: a log holds warnings and errors; steps are in the charts, the rest in Events"
        below: list[Line] = [[(" " + part, "dim")] for part in wrap(words, width - 1)] if words else []
        return [*super().body(width, max(1, height - len(below))), *below]

    def where(self) -> str:
        parts = [super().where()]
        if self.tail is not None and self.tail.skipped:
            parts.append(
                msg(
                    "the last {offset} of {size}",
                    offset=numbers.size(self.tail.offset - self.tail.skipped),
                    size=numbers.size(self.tail.offset),
                )
            )
        parts.append("follows" if self.follow else "f follows")
        return " · ".join(filter(None, parts))


class ConfigSheet(Sheet):
    """Every setting and where it came from; above them what the run is."""

    def take(self, run: Run, settings: Sequence[SettingValue], folder: str) -> None:
        """The settings of a run: those that were set stand out from the defaults."""
        facts = [
            ("run", f"{run.id}  {run.name}"),
            ("folder", folder),
            ("model", run.model),
            ("data", run.data),
            ("tags", ", ".join(run.tags)),
            ("note", run.note),
            ("group", run.sweep),
            ("from", f"checkpoint {run.parent_run}@{run.parent_step}" if run.parent_run else ""),
            ("queued", numbers.date_time(run.queued)),
            ("started", numbers.date_time(run.started)),
            ("ended", numbers.date_time(run.finished)),
            ("attempts", str(run.attempts) if run.attempts > 1 else ""),
            ("GPUs", ", ".join(run.gpus)),
        ]
        lines: list[Line] = [
            [(" " + fit(name, 10), "dim"), (one_line(value), "text")] for name, value in facts if value
        ]
        if settings:
            lines.append([])
        key_width = max((cells(setting.key) for setting in settings), default=0) + 2
        shown = [numbers.setting_text(setting.value) for setting in settings]
        value_width = min(36, max(map(cells, shown), default=0)) + 2
        for setting, value in zip(settings, shown, strict=True):
            is_set = setting.origin not in ("", "default")
            lines.append(
                [
                    (" " + fit(one_line(setting.key), key_width), "text" if is_set else "dim"),
                    (fit(value, value_width), "bright" if is_set else "text"),
                    (one_line(setting.origin), "key" if is_set else "dim"),
                ]
            )
        self._lines = lines


class EventsSheet(Sheet):
    """What happened to the run, the newest first: times of the day of its last event, dates before that."""

    def take(self, events: Sequence[Event]) -> None:
        """The events of a run."""
        lines: list[Line] = []
        for event in reversed(events):
            when = numbers.clock(event.time, events[-1].time)
            role = "failed" if event.message == "failed" or event.kind == "oom" else "text"
            step = f"step {numbers.count(event.step)}  " if event.step is not None else ""
            text = event_text.describe_event(event.kind, event.message, event.detail)
            lines.append(
                [
                    (f" {when:<11} ", "dim"),
                    (fit(one_line(event_text.event_name(event.kind, event.message)), 10) + " ", "text"),
                    (step, "dim"),
                    (one_line(text), role),
                ]
            )
        self._lines = lines

    def body(self, width: int, height: int) -> list[Line]:
        return super().body(width, height) if self._lines else [[(" nothing has happened to it yet", "dim")]]


class TextSheet(Sheet):
    """Lines made elsewhere: the failure card."""

    def take(self, lines: Sequence[Line]) -> None:
        """Lines that were drawn elsewhere."""
        self._lines = lines
