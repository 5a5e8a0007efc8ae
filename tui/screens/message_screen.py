"""The message log as a sheet over the screen: all that was said, whole, the newest first."""

from engine.base.messages import msg
from engine.present.numbers import clock
from engine.present.text import wrap
from tui.data.snapshot import Snapshot
from tui.render.line import Line
from tui.screens.dialogs import Dialog
from tui.widgets.scroll import ScrollPane


class _Messages(ScrollPane):
    scope = "list"

    def __init__(self) -> None:
        super().__init__(id="dialog")
        self._made: tuple[int, int] = (-1, 0)
        self._lines: list[Line] = []

    def title(self) -> str:
        return "Messages, the newest first"

    def hint(self) -> str:
        return msg("{n} more below · j k move · esc back", n=self.below) if self.below else "j k move · esc back"

    def content(self, width: int) -> list[Line]:
        log = self.host.messages
        if self._made != (log.added, width):
            self._made, self._lines = (log.added, width), []
            now = self.host.snapshot.taken
            for message in sorted(log.messages, key=lambda message: message.time, reverse=True):
                when = clock(message.time, now)
                for index, text in enumerate(wrap(message.text, max(20, width - 15))):
                    self._lines.append([(f" {'' if index else when:<12} ", "dim"), (text, message.role)])
        return self._lines or [[("  nothing has been said yet", "dim")]]


class MessageScreen(Dialog[_Messages]):
    """What is said while it is open comes on top."""

    own_places = ("list", "any")

    def box(self) -> _Messages:
        return _Messages()

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width, 124), height - 2

    def take(self, snapshot: Snapshot) -> None:
        """Something may have been said."""
        self.pane.repaint()

    def status_changed(self) -> None:
        self.pane.repaint()

    def action_any_messages(self) -> None:
        """The key that opened it closes it."""
        self.app.pop_screen()
