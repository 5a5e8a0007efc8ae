"""Dialogs over a screen: a notice, a question before something is destroyed, a choice from a list, help, commands."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.geometry import Region

from engine.base.messages import msg
from engine.present.text import cells, cut, fit, one_line, wrap
from tui.keymap import ACTIONS, PLACES, Action, written
from tui.render.line import Line, line_cells
from tui.screens.key_screen import KeyScreen, place
from tui.terminal.textual_private import make_modal
from tui.widgets.pane import Pane
from tui.widgets.rows import Row, Rows

BoxT = TypeVar("BoxT", bound=Pane)


class Dialog(KeyScreen, Generic[BoxT]):
    """A box in the middle of the screen; what is below stays in sight. `pane` is the box that `box` made."""

    pane: BoxT

    def __init__(self) -> None:
        super().__init__()
        make_modal(self)

    def box(self) -> BoxT:
        """The pane in the middle, made once."""
        raise NotImplementedError

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        """Its size on a terminal of so many cells; cut to the terminal by the caller."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        self.pane = self.box()
        yield self.pane

    @property
    def footer_words(self) -> str:
        """The keys of the dialog."""
        return self.pane.hint()

    @property
    def complete(self) -> bool:
        """Once its box has been drawn."""
        return self.pane.drawn

    def seen(self, event: events.Key) -> bool:
        """Whether the box was on the terminal when a key was typed: one typed before cannot be meant for what it
        says."""
        return self.drawn_at is not None and event.time > self.drawn_at

    def on_mount(self) -> None:
        """Take the focus, and let the footer below name the keys of the dialog."""
        self.styles.background = "transparent"
        self.set_focus(self.pane)

    def repainted(self) -> None:
        """The footer below shows the box's hint."""
        self.footers_changed()

    def on_unmount(self) -> None:
        """Give the footer below back to its screen."""
        self.footers_changed()

    def on_resize(self, event: events.Resize) -> None:
        self.place_box()

    def place_box(self) -> None:
        """Put the box in the middle."""
        place(self.pane, self.box_region())
        self.show_prompt()

    def box_region(self) -> Region:
        """Where that is."""
        width, height = self.app.size
        box_width, box_height = map(min, self.box_size(width, height), (width, height))
        return Region((width - box_width) // 2, (height - box_height) // 2, max(0, box_width), max(0, box_height))

    def on_screen_resume(self) -> None:
        self.place_box()


class Words(Pane):
    """A text with keys in the frame."""

    scope = "any"

    def __init__(self, heading: str, lines: Sequence[Line], keys: str) -> None:
        super().__init__(id="dialog")
        self._heading, self._body, self._keys = heading, lines, keys

    def title(self) -> str:
        return self._heading

    def hint(self) -> str:
        return self._keys

    def body(self, width: int, height: int) -> list[Line]:
        return [[], *([("  ", "text"), *line] for line in self._body)]


class Notice(Dialog[Words]):
    """Something worth knowing, until the next key, which does nothing else: it was typed to close this."""

    own_places = ("any",)
    columns = 70
    keys = "any key goes on"

    def __init__(self, heading: str, words: Sequence[str] = ()) -> None:
        super().__init__()
        self.heading, self.words = heading, words
        self.lines = self._wrapped(64)

    def _wrapped(self, width: int) -> list[Line]:
        return [[(part, "text")] for text in self.words for part in wrap(text, width)]

    def box(self) -> Words:
        if self.words:
            self.lines = self._wrapped(min(64, self.app.size.width - 10))
        return Words(self.heading, self.lines, self.keys)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 4, self.columns), len(self.lines) + 4

    def key(self, event: events.Key) -> bool:
        """Close, once it has been seen."""
        if self.seen(event):
            self.app.pop_screen()
        return True

    def on_click(self) -> None:
        """As a key."""
        self.key(events.Key("enter", "\r"))


class Confirm(Dialog[Words]):
    """Asks before something is lost: the one question that all of that goes through.

    Only `y` confirms, no key that opens a question and not enter, which is pressed too easily; and only typed after the
    question was on the terminal: held, stuttering or in one write, no key that was typed for something else answers.
    """

    own_places = ("any",)
    no = ("n", "N", "q", "escape")

    def __init__(self, heading: str, lost: Sequence[str], done: Callable[[], Any], verb: str) -> None:
        super().__init__()
        self.heading, self.done, self.verb = heading, done, verb
        self.lost = [part for text in lost for part in wrap(text, 64)]

    def box(self) -> Words:
        keys = msg("y {verb} · n or esc: no", verb=self.verb)
        return Words(self.heading, [[(text, "text")] for text in self.lost], keys)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 4, 70), len(self.lost) + 4

    def key(self, event: events.Key) -> bool:
        """Do it on `y`, and close on what says no; every other key leaves the question standing."""
        if not self.seen(event):
            return True
        if event.character == "y":
            self.app.pop_screen()
            self.done()
        elif event.key in self.no:
            self.app.pop_screen()
            self.host.say("nothing was changed")
        return True


class _List(Rows):
    scope = "list"

    def __init__(self, heading: str, keys: str) -> None:
        super().__init__(id="dialog")
        self._heading, self._keys = heading, keys

    def title(self) -> str:
        return self._heading

    def hint(self) -> str:
        return self._keys


class _Choices(_List):
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
            rows += [Row(None, [("     ", "text"), *rest]) for rest in below]
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
        if event.key == "enter" and row is not None:
            self.app.pop_screen()
            values = [value for index, (value, _) in enumerate(self.choices) if index in marked]
            self.chosen(values if values and row.value is not None else [row.value])
            return True
        return super().key(event)


class _Help(_List):
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
                row: Line = [
                    ("  ", "text"),
                    (fit(keys, left), "key"),
                    (fit(text, width - left - 4 - len(name)), "text"),
                ]
                rows.append(Row(action_id, [*row, (name, "dim")]))
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
        self.ask(_FIND, shown, self.pane.filter, self.pane.filter, lambda: self.pane.filter(shown))

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


Command = tuple[str, str, str, Action, str]
"""Label, keys, help, the action, and why it cannot be done now."""


class _Commands(_List):
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
                line: Line = [("  ", "text"), (fit(label, 18), role), (fit(keys, 10), "dim" if reason else "key")]
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
