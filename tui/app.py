"""The screen's application: owns the feed, the actor and the look, and hands news to the screens.

State flows down as one frozen `Snapshot`; wishes go out through the `Actor`. Nothing on the event loop waits for the
store, the daemon, a disk or the terminal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.message import Message

from engine.home import Workspace
from tui.actor import Acted, Actor
from tui.driver import Driver
from tui.feed import Answer, Feed, Updated
from tui.format import visible
from tui.glass import Glass
from tui.keys import Keymap
from tui.screens.base import KeyScreen
from tui.settings import Settings
from tui.snapshot import Snapshot
from tui.theme import Look, choose, speaks_utf8


@dataclass(frozen=True, slots=True)
class News:
    """The line above the footer: kept until the next."""

    text: str
    role: str = "text"


class Drained(Message):
    """The terminal has taken all it was sent, after it could not keep up."""


class FinetopApp(App, inherit_bindings=False):
    TITLE = "finetop"
    BINDINGS = []
    ENABLE_COMMAND_PALETTE = False
    NOTIFICATION_TIMEOUT = 3
    CSS = "Screen { background: $background; color: $foreground; layers: base over; }"

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings | None = None,
        readonly: bool = False,
        control: Callable[[], Any] | None = None,
    ) -> None:
        """`control` makes what changes go through, in the tests a stand-in."""
        super().__init__(driver_class=Driver)
        self.animation_level = "none"
        self.workspace = workspace
        self.settings = settings or Settings()
        self.readonly = readonly
        self.keymap = Keymap(self.settings.keys)
        system = self.console.color_system
        self.look = Look(choose(self.settings.theme, system), self.settings.ascii, speaks_utf8())
        self.register_theme(self.look.textual())
        self.theme = "finetop"
        self.glass = Glass(None if system is None else self.console._color_system)
        self.snapshot = Snapshot(0.0)
        self.news = News("")
        self.feed = Feed(workspace, self.post_message)
        self.actor = Actor(workspace, self.post_message, control)
        self._owing = False

    def on_mount(self) -> None:
        from tui.screens.main import MainScreen

        self.feed.start()
        self.push_screen(MainScreen())

    def on_unmount(self) -> None:
        self.feed.stop()
        self.actor.stop()

    # news in

    def on_updated(self, message: Updated) -> None:
        self.snapshot = message.snapshot
        for screen in self.screen_stack:
            if isinstance(screen, KeyScreen):
                screen.take(message.snapshot)

    def on_answer(self, message: Answer) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, KeyScreen):
                screen.answered(message)

    def on_acted(self, message: Acted) -> None:
        self.feed.refresh()
        if message.error:
            self.say(f"{message.what}: {message.error}", "failed")
        elif message.then is not None:
            message.then(message.outcomes)

    def say(self, text: str, role: str = "text") -> None:
        """Put a line above the footer; it stays until the next."""
        self.news = News(visible(text), role)
        for screen in self.screen_stack:
            if hasattr(screen, "show_news"):
                screen.show_news()

    # painting: see `glass` and `driver`

    def _display(self, screen: Any, renderable: Any) -> None:
        driver = self._driver
        if (
            self.is_headless
            or not isinstance(driver, Driver)
            or driver.writer is None
            or not isinstance(renderable, (ChopsUpdate, LayoutUpdate))
        ):
            super()._display(screen, renderable)
            return
        if self._batch_count or not self._running or self._closed:
            return
        driver.writer.drained = self._drained
        if driver.writer.busy():
            self._owing = True  # the newest picture is sent when the terminal has taken this one
            return
        width, height = self.size
        data = self.glass.changes(renderable, width, height)
        if not data:
            return
        if self.cursor_position != (0, 0):
            data += f"\x1b[{self.cursor_position.y + 1};{self.cursor_position.x + 1}H"
        if self._sync_available and len(data) > 400:
            data = f"\x1b[?2026h{data}\x1b[?2026l"
        driver.write(data)

    def _drained(self) -> None:
        self.post_message(Drained())

    def on_drained(self) -> None:
        if self._owing:
            self._owing = False
            self.screen.refresh()

    def do_any_redraw(self) -> None:
        self.glass.forget()
        self.screen.refresh()
