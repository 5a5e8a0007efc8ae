"""What the tabs of the selected run hold apart from charts and its log: settings, events, as lines that scroll."""

from collections.abc import Sequence
from typing import Any

from engine.base.messages import msg
from engine.present import event_text, numbers
from engine.present.text import cells, fit, one_line, wrap
from engine.store.run_records import Event, Run, SettingValue
from tui.render.line import Line, crop_line


class Sheet:
    """Items, each of one line or several, with a place from which they are shown. `follow` keeps to the end."""

    def __init__(self) -> None:
        self.top = 0
        self.left = 0
        self.follow = False
        self._lines: Sequence[Any] = ()
        self._height = 1
        self._most = 0
        """The last place from which the end is in sight."""
        self._in_sight = 0

    def line(self, item: Any, width: int) -> Line:
        """An item's line as it is drawn, moved sideways."""
        return crop_line(item, self.left, width) if self.left else item

    def lines_of(self, item: Any, width: int) -> list[Line]:
        """The lines of an item."""
        return [self.line(item, width)]

    def body(self, width: int, height: int) -> list[Line]:
        """The lines in sight."""
        self._height = max(1, height)
        last: list[Line] = []
        self._most = len(self._lines)
        while self._most and len(last) < self._height:
            above = self.lines_of(self._lines[self._most - 1], width)
            if last and len(above) + len(last) > self._height and not self.follow:
                break
            self._most -= 1
            last = [*above, *last]
        if self.follow:
            self.top, self._in_sight = self._most, len(self._lines) - self._most
            return last[-self._height :]
        self.top = max(0, min(self.top, self._most))
        shown: list[Line] = []
        self._in_sight = 0
        for item in self._lines[self.top : self.top + self._height]:
            if len(shown) >= self._height:
                break
            shown += self.lines_of(item, width)
            self._in_sight += 1
        return shown[: self._height]

    def scroll(self, by: int) -> None:
        """Move by items; scrolling up ends following."""
        self.top = max(0, min(self.top + by, self._most))
        self.follow = self.follow and by > 0

    def page(self) -> int:
        """How many items a page is."""
        return max(1, self._in_sight - 1)

    def sideways(self, by: int) -> None:
        """Move by cells."""
        self.left = max(0, self.left + by)

    def where(self) -> str:
        """Which part is shown, for the frame."""
        if self._in_sight >= len(self._lines):
            return ""
        return f"{self.top + 1}-{self.top + self._in_sight} of {numbers.count(len(self._lines))}"


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

    def take(self, run: Run, events: Sequence[Event]) -> None:
        """The events of a run; when it was queued is in its row."""
        entries = [(event.time, _lead(event), *_sentence(event)) for event in events]
        for when, text in ((run.created, "queued"), (run.queued, "queued again")):
            if when is not None and (text == "queued" or when > run.created):
                entries.append((when, "", text, "text"))
        entries.sort(key=lambda entry: entry[0], reverse=True)
        last = entries[0][0]
        self._lines = [(numbers.clock(when, last), lead, text, role) for when, lead, text, role in entries]

    def lines_of(self, item: tuple[str, str, str, str], width: int) -> list[Line]:
        """An event, wrapped beside its time."""
        when, lead, text, role = item
        first = f" {when:<11} "
        texts = wrap(lead + text, max(16, width - len(first)))
        return [[(first if not index else " " * len(first), "dim"), (part, role)] for index, part in enumerate(texts)]


def _lead(event: Event) -> str:
    name = fit(one_line(event_text.event_name(event.kind, event.message)), 10)
    return name + " " + (msg("step {step}  ", step=numbers.count(event.step)) if event.step is not None else "")


def _sentence(event: Event) -> tuple[str, str]:
    role = "failed" if event.message == "failed" or event.kind == "oom" else "text"
    return one_line(event_text.describe_event(event.kind, event.message, event.detail)), role


class TextSheet(Sheet):
    """Lines made elsewhere: the failure card."""

    def take(self, lines: Sequence[Line]) -> None:
        """Lines that were drawn elsewhere."""
        self._lines = lines
