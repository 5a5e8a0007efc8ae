"""A choice from a list, of one or of several."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from textual import events

from engine.present.text import cells, wrap
from tui.render.line import Line, line_cells
from tui.screens.dialogs import Dialog, ListBox
from tui.widgets.rows import Row


class _Choices(ListBox):
    def __init__(self, heading: str, choices: Sequence[tuple[Any, Line]], keys: str) -> None:
        super().__init__(heading, keys)
        self._choices = choices
        self.marked: set[Hashable] = set()

    def make_rows(self, width: int) -> Sequence[Row]:
        rows = []
        for index, (value, line) in enumerate(self._choices):
            first, *below = _wrapped_choice(line, width - 3)
            sign = (" ✓ ", "mark") if index in self.marked else ("   ", "text")
            rows.append(Row(index, [sign, *first], value))
            rows += [Row(None, [("     ", "text"), *effect]) for effect in below]
        return rows


def _wrapped_choice(line: Line, width: int) -> list[Line]:
    """A choice of several parts whose last has no room beside the others has that below them."""
    if line_cells(line) <= width or len(line) < 2:
        return [line]
    *first, (text, role) = line
    return [list(first), *([(part, role)] for part in wrap(text, max(20, width - 2)))]


class Choose(Dialog[_Choices]):
    """One of a list. `chosen` gets its value; nothing is destroyed by choosing, so Enter may do it."""

    own_places = ("list", "any")
    keys = "enter chooses · esc back"

    def __init__(self, heading: str, choices: Sequence[tuple[Any, Line]], chosen: Callable[[Any], Any]) -> None:
        super().__init__()
        self.heading, self.choices, self.chosen = heading, choices, chosen

    def box(self) -> _Choices:
        return _Choices(self.heading, self.choices, self.keys)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        widest = max([cells(self.heading) + 8, 40, *(line_cells(line) + 6 for _, line in self.choices)])
        box_width = min(width - 4, widest)
        lines = sum(len(_wrapped_choice(line, box_width - 5)) for _, line in self.choices)
        return box_width, min(height - 4, lines + 2)

    def key(self, event: events.Key) -> bool:
        """Enter or space chooses; all else moves the cursor."""
        if event.key not in ("enter", "space"):
            return super().key(event)
        row = self.pane.current
        self.app.pop_screen()
        if row is not None:
            self.chosen(row.value)
        return True


class ChooseSome(Choose):
    """Several of a list, marked with space, or the one under the cursor. `chosen` gets a list of values; what has None
    as its value is chosen alone."""

    keys = "space marks several · enter chooses · esc back"

    def key(self, event: events.Key) -> bool:
        """Space marks, or takes the mark away."""
        marked, row = self.pane.marked, self.pane.current
        if event.key == "space" and row is not None and row.value is not None:
            marked.symmetric_difference_update({row.key})
            self.pane.rebuild()
            return True
        if event.key in ("enter", "space") and row is not None:
            self.app.pop_screen()
            values = [value for index, (value, _) in enumerate(self.choices) if index in marked]
            self.chosen(values if values and row.value is not None else [row.value])
            return True
        return super().key(event)
