"""A list of rows with a cursor: identity by key, never by place, so that a row that moves keeps the cursor."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from textual.message import Message

from tui.render.line import Line
from tui.widgets.pane import Pane


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a list."""

    key: Hashable | None
    """None: a line between the rows, such as the head of a section, where the cursor never stands."""
    line: Line | None = None
    """None: made by the list when the row is in sight, which matters for thousands of rows."""
    value: Any = None


def first_shown(top: int, index: int, count: int, room: int) -> int:
    """The first of `count` rows to show in `room` lines so that row `index` is in sight, when it was `top` before.

    A scrolled list is sent again, all of it, 1 kB and more. So beyond the edge the cursor comes to the middle, and
    one move in many scrolls instead of each; but never so far that a row between was not in sight before or after.
    """
    most = max(0, count - room)
    top = min(top, most)
    if index < top:
        return max(0, min(index, max(index - room // 2, top - room)))
    if index >= top + room:
        return min(most, max(index - room + 1, min(index - room // 2, top + room)))
    return top


class Rows(Pane):
    """A pane that shows rows. Subclasses build them in `make_rows`; the cursor stays with its key."""

    class Moved(Message):
        """The cursor stands on another row."""

        def __init__(self, rows: "Rows", key: Hashable | None) -> None:
            self.rows = rows
            self.key = key
            super().__init__()

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows: Sequence[Row] = ()
        self.key: Hashable | None = None
        self._index = 0
        self._top = 0
        self._width = 0
        self._height = 0
        """Of the room the rows are drawn in: in this pane's frame, or lent by another."""

    def make_rows(self, width: int) -> Sequence[Row]:
        """All rows, for so many cells."""
        return ()

    def head(self, width: int) -> list[Line]:
        """Lines above the rows that do not scroll."""
        return []

    def nothing(self, width: int, height: int) -> list[Line]:
        """What stands there when there are no rows."""
        return []

    def line_of(self, row: Row) -> Line:
        """The line of a row that has none yet."""
        return []

    def cursor_line(self, line: Line, row: Row) -> Line:
        """A row's line when the cursor is on it: a bar in its first cell, the cheapest change there is."""
        text, _ = line[0] if line else ("", "")
        return [("▌", "cursor"), (text[1:], line[0][1] if line else "text"), *line[1:]]

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return self.rows[self._index] if self.rows and self._index < len(self.rows) else None

    def rebuild(self) -> None:
        """Make the rows again; the cursor follows its key, or stays at about its place if that is gone.

        Before there is room for them they are made as wide as the screen: keys typed ahead choose among them.
        """
        seen = self.display and self.outer_size.width > 2
        self._width = width = self.outer_size.width - 2 if seen else self._width or self.app.size.width
        self.rows = self.make_rows(width) if width > 0 else ()
        old_key = self.key
        for index, row in enumerate(self.rows):
            if row.key is not None and row.key == self.key:
                self._index = index
                break
        else:
            self._index = self._nearest(self._index)
            self.key = self.rows[self._index].key if self.rows else None
        self.repaint()
        if self.key != old_key:
            self.post_message(self.Moved(self, self.key))

    def on_mount(self) -> None:
        self.rebuild()

    def on_resize(self) -> None:
        self.rebuild()

    def lines_at(self, width: int, height: int) -> list[Line]:
        """The rows for another pane that lends its room."""
        if width != self._width:
            self._width = width
            self.rows = self.make_rows(width)
        return self.body(width, height)

    def body(self, width: int, height: int) -> list[Line]:
        """The rows in sight, with the cursor."""
        self._height = height
        head = self.head(width)
        if not self.rows:
            return [*head, *self.nothing(width, height - len(head))]
        room = max(1, height - len(head))
        self._top, old_top = first_shown(self._top, self._index, len(self.rows), room), self._top
        if self._top < old_top:
            # The head of a section stays in sight above its first row.
            while self._top and self.rows[self._top - 1].key is None and self._index - self._top < room - 1:
                self._top -= 1
        shown = []
        for index in range(self._top, min(self._top + room, len(self.rows))):
            row = self.rows[index]
            line = self.line_of(row) if row.line is None else row.line
            shown.append(self.cursor_line(line, row) if index == self._index else line)
        return [*head, *shown]

    @property
    def rows_below(self) -> int:
        """How many rows, headings left out, lie below what is shown."""
        shown = self._top + max(1, self._height - len(self.head(self._width)))
        return sum(row.key is not None for row in self.rows[shown:])

    def clicked(self, x: int, y: int) -> bool:
        """On a row: the cursor goes there."""
        index = self._top + y - len(self.head(self._width))
        if not (self._top <= index < len(self.rows)) or self.rows[index].key is None:
            return False
        self._go(index)
        return True

    def page(self) -> int:
        """How many rows a page is."""
        return max(1, self._height - 1 - len(self.head(self._width)))

    def move_to(self, key: Hashable) -> bool:
        """Put the cursor on a row; False if there is none of that key."""
        for index, row in enumerate(self.rows):
            if row.key == key:
                self._go(index)
                return True
        return False

    def home(self) -> None:
        """Forget where the cursor was: other rows are coming."""
        self.key, self._index, self._top = None, 0, 0

    def action_list_down(self) -> None:
        """To the next row where the cursor may stand."""
        self._go(self._nearest(self._index + 1, 1))

    def action_list_up(self) -> None:
        """To the row above."""
        self._go(self._nearest(self._index - 1, -1))

    def action_list_page_down(self) -> None:
        """Down by a page."""
        self._go(self._nearest(self._index + self.page(), 1))

    def action_list_page_up(self) -> None:
        """Up by a page."""
        self._go(self._nearest(self._index - self.page(), -1))

    def action_list_top(self) -> None:
        """To the first row."""
        self._go(self._nearest(0, 1))

    def action_list_bottom(self) -> None:
        """To the last row."""
        self._go(self._nearest(len(self.rows) - 1, -1))

    def _go(self, index: int) -> None:
        if not self.rows or index == self._index:
            return
        self._index = index
        self.key = self.rows[index].key
        self.repaint()
        self.post_message(self.Moved(self, self.key))

    def _nearest(self, index: int, direction: int = 1) -> int:
        """The row at or beyond `index` where the cursor may stand."""
        if not self.rows:
            return 0
        index = max(0, min(index, len(self.rows) - 1))
        for way in (direction, -direction):
            at = index
            while 0 <= at < len(self.rows):
                if self.rows[at].key is not None:
                    return at
                at += way
        return index
