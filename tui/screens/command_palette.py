"""All actions by name; what is typed finds them."""

from collections.abc import Sequence

from textual import events

from engine.present.text import cut, fit, one_line
from tui.keymap import Action, written
from tui.render.line import Line
from tui.screens.dialogs import Dialog, ListBox
from tui.screens.key_screen import KeyScreen
from tui.widgets.rows import Row

Command = tuple[str, str, str, Action, str]
"""Label, keys, help, the action, and why it cannot be done now."""


class _Commands(ListBox):
    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__("Commands", "type to find · enter does it · esc back")
        self._commands = commands
        self.text = ""

    def filter(self, text: str) -> None:
        """Show only what holds these words, and choose the first."""
        self.text, self.key = text, None
        self.rebuild()
        self.action_list_top()
        self.repaint()

    def head(self, width: int) -> list[Line]:
        return [[(" : ", "key"), (one_line(self.text), "bright"), (" ", "mark")], []]

    def make_rows(self, width: int) -> Sequence[Row]:
        words = self.text.lower().split()
        rows = []
        for label, keys, help_text, action, reason in self._commands:
            if all(word in f"{label} {help_text}".lower() for word in words):
                role = "dim" if reason else "text"
                line: Line = [
                    ("  ", "text"),
                    (fit(label, 17) + " ", role),
                    (fit(keys, 9) + " ", "dim" if reason else "key"),
                ]
                rows.append(Row(action, [*line, (cut(reason or help_text, max(0, width - 31)), "dim")], action))
        first = [row for row in rows if words and any(row.value.label.lower().startswith(word) for word in words)]
        return [*first, *(row for row in rows if row not in first)]

    def nothing(self, width: int, height: int) -> list[Line]:
        return [[("  no command of that name", "dim")]]


class CommandPalette(Dialog[_Commands]):
    """All actions by name; those that cannot be done now say why."""

    own_places = ("list", "any")

    def __init__(self, below: KeyScreen) -> None:
        super().__init__()
        self.below = below

    def box(self) -> _Commands:
        """The actions that can be reached from the screen below."""
        commands: list[Command] = []
        keymap = self.host.keymap
        places = tuple(self.below.places())
        wider = [name for name in ("runs", "checkpoints", "main") if name not in places]
        for action in keymap.reachable((*places, *wider)):
            if action.where in ("list",) or not action.label or action.id == "any.palette":
                continue
            keys = " ".join(map(written, keymap.keys(action.id)))
            commands.append((action.label, keys, action.help, action, self.below.disabled_reason(action)))
        return _Commands(commands)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 4, 96), min(height - 4, 24)

    def key(self, event: events.Key) -> bool:
        """What is typed filters; arrows and pages move; enter does the action on the screen below."""
        pane = self.pane
        if event.key == "escape":
            self.app.pop_screen()
        elif event.key == "enter":
            row = pane.current
            self.app.pop_screen()
            if row is not None:
                self.below.perform(row.value)
        elif event.key in ("down", "ctrl+n", "tab"):
            pane.action_list_down()
        elif event.key in ("up", "ctrl+p", "shift+tab"):
            pane.action_list_up()
        elif event.key in ("pagedown", "pageup"):
            pane.action_list_page_down() if event.key == "pagedown" else pane.action_list_page_up()
        elif event.key == "backspace":
            pane.filter(pane.text[:-1])
        return True

    takes_text = True

    def put_text(self, text: str) -> None:
        """What is typed filters."""
        self.pane.filter(self.pane.text + text)
