"""What the demo shows a newcomer, once: what is running here, and which keys to press first."""

from engine.present.text import fit
from tui.keymap import written
from tui.screens.dialogs import Notice, Words

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


class Welcome(Notice):
    """Closed by any key."""

    columns = 74
    keys = "any key begins"

    def __init__(self) -> None:
        super().__init__("Welcome to finetop")

    def box(self) -> Words:
        self.lines = [*([(text, "text")] for text in _TEXT), []]
        for actions, does in _FIRST:
            keys = ", ".join(written(key) for action in actions for key in self.host.keymap.keys(action)[:1])
            self.lines.append([(fit(keys, 12), "key"), (does, "text")])
        return super().box()
