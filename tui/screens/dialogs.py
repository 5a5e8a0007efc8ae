"""Dialogs over a screen: a question before something is destroyed, a choice from a list, and the line for a text."""

from collections.abc import Callable, Sequence
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.geometry import Region

from engine.base.messages import msg
from engine.present.text import cells, cut, fit, one_line, wrap
from tui.render.line import Line, line_cells
from tui.screens.key_screen import KeyScreen, lay
from tui.widgets.bars import Footer
from tui.widgets.pane import Pane
from tui.widgets.rows import Row, Rows


class Dialog(KeyScreen):
    """A box in the middle of the screen; what is below stays in sight."""

    def __init__(self) -> None:
        super().__init__()
        self._modal = True

    def box(self) -> Pane:
        raise NotImplementedError

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        self.pane = self.box()
        yield self.pane

    @property
    def footer_words(self) -> str:
        """What the footer below says while this is open."""
        return self.pane.hint()

    def on_mount(self) -> None:
        self.styles.background = "transparent"
        self.set_focus(self.pane)
        self._footers()

    def on_unmount(self) -> None:
        self._footers()

    def _footers(self) -> None:
        for screen in self.app.screen_stack:
            for footer in screen.query(Footer):
                footer.repaint()

    def on_resize(self, event: events.Resize) -> None:
        self.place_box()

    def place_box(self) -> None:
        width, height = self.app.size
        box_width, box_height = map(min, self.box_size(width, height), (width, height))
        lay(self.pane, Region((width - box_width) // 2, (height - box_height) // 2, box_width, box_height))

    def on_screen_resume(self) -> None:
        self.place_box()


class _Words(Pane):
    place = "any"

    def __init__(self, heading: str, lines: Sequence[Line], keys: str) -> None:
        super().__init__(id="dialog")
        self._heading, self._body, self._keys = heading, lines, keys

    def title(self) -> str:
        return self._heading

    def hint(self) -> str:
        return self._keys

    def body(self, width: int, height: int) -> list[Line]:
        return [[], *([("  ", "text"), *line] for line in self._body)]


class Notice(Dialog):
    """Something worth knowing, until the next key. That is heard by the screen below, unless it is one with which
    people put a notice away: it may have been typed ahead, and a notice comes when it likes."""

    own_places = ("any",)
    columns = 70
    keys = "enter goes on"
    closing: tuple[str, ...] = ("enter", "escape", "space", "q")

    def __init__(self, heading: str, words: Sequence[str] = ()) -> None:
        super().__init__()
        self.heading, self.words = heading, words
        self.lines = self._wrapped(64)

    def _wrapped(self, width: int) -> list[Line]:
        return [[(part, "text")] for text in self.words for part in wrap(text, width)]

    def box(self) -> Pane:
        if self.words:
            self.lines = self._wrapped(min(64, self.app.size.width - 10))
        return _Words(self.heading, self.lines, self.keys)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 4, self.columns), len(self.lines) + 4

    @property
    def ready(self) -> bool:
        return self.app.screen_stack[-2].ready

    def key(self, event: events.Key) -> bool:
        self.app.pop_screen()
        return event.key in self.closing or self.app.screen.key(event)


class Confirm(Dialog):
    """Asks before something is lost. Enter is not the key that confirms: it is pressed too easily."""

    own_places = ("any",)

    def __init__(
        self, heading: str, lost: Sequence[str], done: Callable[[], Any], key: str = "y", does: str = "yes"
    ) -> None:
        super().__init__()
        self.heading, self.done, self.confirm_key, self.does = heading, done, key, does
        self.lost = [part for text in lost for part in wrap(text, 64)]

    def box(self) -> Pane:
        keys = msg("{confirm_key} {does} · any other key: no", confirm_key=self.confirm_key, does=self.does)
        return _Words(self.heading, [[(text, "text")] for text in self.lost], keys)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 4, 70), len(self.lost) + 4

    def key(self, event: events.Key) -> bool:
        if event.key == "enter":
            return True
        self.app.pop_screen()
        if event.character == self.confirm_key:
            self.done()
        else:
            self.host.say("nothing was changed")
        return True


class _List(Rows):
    place = "list"

    def __init__(self, heading: str, keys: str) -> None:
        super().__init__(id="dialog")
        self._heading, self._keys = heading, keys

    def title(self) -> str:
        return self._heading

    def hint(self) -> str:
        return self._keys


class _Choices(_List):
    def __init__(self, heading: str, choices: Sequence[tuple[Any, Line]]) -> None:
        super().__init__(heading, "enter chooses · esc back")
        self._choices = choices

    def make_rows(self, width: int) -> Sequence[Row]:
        return [Row(index, [("  ", "text"), *line], value) for index, (value, line) in enumerate(self._choices)]


class Choose(Dialog):
    """One of a list. `chosen` gets its value; nothing is destroyed by choosing, so Enter may do it."""

    own_places = ("list", "any")

    def __init__(self, heading: str, choices: Sequence[tuple[Any, Line]], chosen: Callable[[Any], Any]) -> None:
        super().__init__()
        self.heading, self.choices, self.chosen = heading, choices, chosen

    def box(self) -> Pane:
        return _Choices(self.heading, self.choices)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        widest = max([cells(self.heading) + 8, 40, *(line_cells(line) + 5 for _, line in self.choices)])
        return min(width - 4, widest), min(height - 4, len(self.choices) + 2)

    def key(self, event: events.Key) -> bool:
        if event.key != "enter":
            return super().key(event)
        row = self.pane.current
        self.app.pop_screen()
        if row is not None:
            self.chosen(row.value)
        return True


class _Help(_List):
    def __init__(self, rows: Sequence[tuple[str, str, str]]) -> None:
        super().__init__("Keys", "j k move · esc back · change them in settings.toml")
        self._help = rows

    def make_rows(self, width: int) -> Sequence[Row]:
        rows = []
        for index, (keys, text, action_id) in enumerate(self._help):
            if not keys and not text:
                rows.append(Row(("head", index), [("  ", "text"), (action_id, "title")]))
                continue
            name = fit(action_id, 24) if width > 96 else ""
            line: Line = [
                ("  ", "text"),
                (fit(keys, 14), "key"),
                (fit(text, width - 18 - len(name)), "text"),
                (name, "dim"),
            ]
            rows.append(Row(index, line))
        return rows


class Help(Dialog):
    """What the keys do: those of the place one comes from first, then the rest."""

    own_places = ("list", "any")

    def __init__(self, places: Sequence[str]) -> None:
        super().__init__()
        self.first = [place for place in places if place not in ("any",)]

    def box(self) -> Pane:
        from tui.keymap import ACTIONS, PLACES, written

        keymap = self.host.keymap
        rows: list[tuple[str, str, str]] = []
        for place in [*self.first, *(place for place in PLACES if place not in self.first)]:
            actions = [action for action in ACTIONS if action.where == place]
            if actions:
                rows.append(("", "", PLACES[place]))
            for action in actions:
                keys = " ".join(map(written, keymap.keys(action.id))) or "—"
                rows.append((keys, action.help, action.id))
        return _Help(rows)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width, 124), height - 2

    def do_any_help(self) -> None:
        self.app.pop_screen()


class _Commands(_List):
    def __init__(self, commands: Sequence[tuple[str, str, str, Any, str]]) -> None:
        super().__init__("Commands", "type to find · enter does it · esc back")
        self._commands = commands
        self.text = ""

    def head(self, width: int) -> list[Line]:
        return [[(" : ", "key"), (one_line(self.text), "bright"), (" ", "mark")], []]

    def make_rows(self, width: int) -> Sequence[Row]:
        words = self.text.lower().split()
        rows = []
        for label, keys, help_text, value, why in self._commands:
            if all(word in f"{label} {help_text}".lower() for word in words):
                role = "dim" if why else "text"
                line = [("  ", "text"), (fit(label, 18), role), (fit(keys, 10), "dim" if why else "key")]
                rows.append(Row(value, [*line, (cut(why or help_text, max(0, width - 31)), "dim")], value))
        first = [row for row in rows if words and any(row.line[1][0].lower().startswith(word) for word in words)]
        return [*first, *(row for row in rows if row not in first)]

    def nothing(self, width: int, height: int) -> list[Line]:
        return [[("  no command of that name", "dim")]]


class Palette(Dialog):
    """All actions by name; those that cannot be done now say why."""

    own_places = ("list", "any")

    def __init__(self, below: KeyScreen) -> None:
        super().__init__()
        self.below = below

    def box(self) -> Pane:
        from tui.keymap import written

        commands = []
        keymap = self.host.keymap
        places = tuple(self.below.places())
        for action in keymap.reachable(
            (*places, *(place for place in ("runs", "checkpoints", "main") if place not in places))
        ):
            if action.where in ("list",) or not action.label or action.id == "any.palette":
                continue
            keys = " ".join(map(written, keymap.keys(action.id)))
            commands.append((action.label, keys, action.help, action, self.below.refusal(action)))
        return _Commands(commands)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 4, 96), min(height - 4, 24)

    def key(self, event: events.Key) -> bool:
        pane = self.pane
        if event.key == "escape":
            self.app.pop_screen()
        elif event.key == "enter":
            row = pane.current
            self.app.pop_screen()
            if row is not None:
                self.below.perform(row.value)
        elif event.key in ("down", "ctrl+n", "tab"):
            pane.do_list_down()
        elif event.key in ("up", "ctrl+p", "shift+tab"):
            pane.do_list_up()
        elif event.key in ("pagedown", "pageup"):
            pane.do_list_page_down() if event.key == "pagedown" else pane.do_list_page_up()
        elif event.key == "backspace":
            self._type(pane.text[:-1])
        elif event.is_printable and event.character:
            self._type(pane.text + event.character)
        return True

    def _type(self, text: str) -> None:
        self.pane.text = text
        self.pane.key = None
        self.pane.rebuild()
        self.pane.do_list_top()
        self.pane.repaint()
