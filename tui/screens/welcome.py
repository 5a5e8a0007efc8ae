"""What the demo tells a newcomer, once: what goes on here, and which keys to press first."""

from textual import events

from tui.format import Line, fit
from tui.keys import written
from tui.screens.base import KeyScreen
from tui.screens.dialogs import Dialog
from tui.widgets.pane import Pane

_FIRST = (
    (("runs.mark",), "marks a run: mark both"),
    (("main.compare", "compare.answers"), "compares them, even while they train; then their answers"),
    (("main.open", "any.back"), "opens a run on the whole screen; and back"),
    (("any.help", "main.quit"), "all keys; leave"),
)
_TEXT = (
    "Two runs teach a small model to tell what people ask for. Only the",
    "learning rate differs. They take about a minute.",
)


class _Box(Pane):
    place = "any"

    def title(self) -> str:
        return "Welcome to finetop"

    def hint(self) -> str:
        return "any key begins"

    def body(self, width: int, height: int) -> list[Line]:
        keymap = self.app.keymap  # type: ignore[attr-defined]
        lines: list[Line] = [[], *([("  " + text, "text")] for text in _TEXT), []]
        for actions, does in _FIRST:
            keys = ", ".join(written(key) for action in actions for key in keymap.keys(action)[:1])
            lines.append([("  ", "text"), (fit(keys, 12), "key"), (does, "text")])
        return lines


class Welcome(Dialog):
    """Any key closes it, and is then heard by the screen below: who does at once as told is not told twice."""

    own_places = ("any",)

    def __init__(self, below: KeyScreen) -> None:
        super().__init__()
        self.below = below

    def box(self) -> Pane:
        return _Box(id="dialog")

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 2, 74), len(_TEXT) + len(_FIRST) + 5

    def key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        self.app.pop_screen()
        if event.key not in ("enter", "escape"):
            self.below.key(events.Key(event.key, event.character))
