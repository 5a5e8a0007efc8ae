"""What the keys do: all of them, searchable."""

from collections.abc import Sequence

from textual.geometry import Region

from engine.present.text import cells, fit, one_line, wrap
from tui.keymap import ACTIONS, PLACES, written
from tui.render.line import Line
from tui.screens.dialogs import Dialog, ListBox
from tui.screens.key_screen import place
from tui.widgets.rows import Row


class _Help(ListBox):
    def __init__(self, table: Sequence[tuple[str, Sequence[tuple[str, str, str]]]]) -> None:
        super().__init__("Keys", "j k move · esc back · / find · change them in settings.toml")
        self._table = table
        self.text = ""

    def filter(self, text: str) -> None:
        """Show only lines that hold these words."""
        self.text = text
        self.rebuild()
        self.action_list_top()

    def head(self, width: int) -> list[Line]:
        """Room for what is looked for."""
        if not self.text and self.key_screen.prompt is None:
            return []
        return [[(_FIND, "key"), (one_line(self.text), "bright")], []]

    def make_rows(self, width: int) -> Sequence[Row]:
        rows = []
        words = self.text.lower().split()
        left = 2 + max(cells(keys) for _, lines in self._table for keys, _, _ in lines)
        for place_name, lines in self._table:
            shown = [line for line in lines if all(word in " ".join(line).lower() for word in words)]
            if shown:
                rows.append(Row((place_name,), [("  ", "text"), (place_name, "title")]))
            for keys, text, action_id in shown:
                name = fit(action_id, 24) if width > 96 else ""
                room = width - left - 4 - len(name)
                first, *more = wrap(text, room) or [""]
                row: Line = [("  ", "text"), (fit(keys, left), "key"), (fit(first, room), "text"), (name, "dim")]
                rows.append(Row(action_id, row))
                rows += [Row(None, [(" " * (left + 2) + line, "text")]) for line in more]
        return rows

    def nothing(self, width: int, height: int) -> list[Line]:
        return [[("  no key does that", "dim")]]


_FIND = "  find: "


class Help(Dialog[_Help]):
    """What the keys do: first in the places they are looked up in now, then everywhere else."""

    own_places = ("help", "list", "any")

    def __init__(self, places: Sequence[str]) -> None:
        super().__init__()
        self.first = [name for name in places if name != "any"]

    def box(self) -> _Help:
        """The table of actions, by place."""
        keymap = self.host.keymap
        table = []
        for name in [*self.first, *(name for name in PLACES if name not in self.first)]:
            actions = [action for action in ACTIONS if action.where == name]
            lines = [
                (" ".join(map(written, keymap.keys(action.id))) or "—", action.help, action.id) for action in actions
            ]
            table.append((PLACES[name], lines))
        return _Help(table)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width, 124), height - 2

    def action_help_find(self) -> None:
        """Ask for a text, and show what holds it while it is typed."""
        shown = self.pane.text
        self.ask(_FIND, shown, self.pane.filter, self.pane.filter, lambda: self.pane.filter(shown), True)

    def show_prompt(self) -> None:
        """In the first line of the box."""
        if self.prompt is not None:
            x, y, width, _ = self.box_region()
            place(self.prompt, Region(x + 1 + len(_FIND), y + 1, max(1, width - len(_FIND) - 3), 1))
        self.pane.rebuild()

    def action_any_back(self) -> None:
        """The text that is looked for first."""
        if self.give_up():
            return
        if self.pane.text:
            self.pane.filter("")
        else:
            super().action_any_back()

    def action_any_help(self) -> None:
        """The key that opened the help closes it."""
        self.app.pop_screen()
