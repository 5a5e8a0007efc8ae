"""What the tabs of the selected run hold apart from charts and its log: settings, events, as lines that scroll."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.messages import msg
from engine.present import event_text, numbers
from engine.present.text import cells, fit, one_line, wrap
from engine.store.run_records import Event, Run, SettingValue
from tui.render.line import Line, crop_line, line_cells


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


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name with its value, and for a setting that is not the default where that came from."""

    name: str
    value: str
    column: int
    """Where the values of its part begin, if the pane is wide enough."""
    origin: str = ""
    role: str = "text"


class ConfigSheet(Sheet):
    """What the run is, the settings that are not the default with where they came from, then all others."""

    def take(self, run: Run, settings: Sequence[SettingValue], folder: str) -> None:
        """The settings of a run."""
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
        items: list[_Entry | str] = [_Entry(name, one_line(value), 12) for name, value in facts if value]
        for heading, are_set in (("not the default", True), ("the defaults", False)):
            part = [setting for setting in settings if (setting.origin not in ("", "default")) is are_set]
            column = max((cells(setting.key) for setting in part), default=0) + 3
            items += ["", heading] if part else []
            for setting in part:
                origin, role = (one_line(setting.origin), "bright") if are_set else ("", "dim")
                value = numbers.setting_text(setting.value)
                items.append(_Entry(one_line(setting.key), value, column, origin, role))
        self._lines = items

    def lines_of(self, item: _Entry | str, width: int) -> list[Line]:
        """A heading, or an entry: its value wrapped beside its name, where it came from at the right edge; each on a
        line of its own where there is no room beside each other."""
        if isinstance(item, str):
            return [[(f" {item}", "title")]]
        column = min(item.column, max(12, width // 2))
        values = wrap(item.value, max(8, width - column - 1)) or [""]
        role = "text" if item.origin else "dim"
        names = wrap(item.name, width - 1, " ", " ")
        lines: list[Line] = [[(name, role)] for name in names]
        if len(names) > 1 or cells(names[0]) >= column:
            lines.append([(" " * column, "text"), (values[0], item.role)])
        else:
            lines = [[(fit(names[0], column), role), (values[0], item.role)]]
        lines += [[(" " * column, "text"), (value, item.role)] for value in values[1:]]
        if item.origin:
            room = width - line_cells(lines[-1]) - 1
            if cells(item.origin) + 2 <= room:
                lines[-1].append((fit(item.origin, room, ">"), "key"))
            else:
                lines += [[(fit(part, width - 1, ">"), "key")] for part in wrap(item.origin, width - 3)]
        return [self.line(line, width) for line in lines]


class EventsSheet(Sheet):
    """What happened to the run, the newest first: times of the day of its last event, dates before that."""

    def take(self, run: Run, events: Sequence[Event]) -> None:
        """The events of a run; when it was queued is in its row."""
        entries = [(event.time, _lead(event), *_sentence(event)) for event in event_text.told_once(events)]
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
