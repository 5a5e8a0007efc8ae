"""All that is used of Textual and Rich beyond what they promise to keep, in one place: whoever tries another version
reads this file, and `tests/tui/terminal/test_screen_pty.py` says in a real terminal whether it will do.

    textual._compositor: ChopsUpdate, LayoutUpdate    what a picture changes, for `screen_diff`
    textual._keyboard_protocol                        names of keys that mean nothing by themselves
    textual._xterm_parser: XTermParser                keys out of bytes, behind the answer about the background
    App._display                                      the one place where a picture goes out
    App._batch_count, _running, _closed               whether one may go out now
    App._sync_available                               whether the terminal shows a picture at once
    App._driver                                       the driver, whose writer may be behind
    App._check_bindings                               the keys of an input line: arrows, backspace, enter
    App._fatal_error, _close_messages_no_wait         leaving with one line instead of a traceback
    Input._value                                      what a line to type in shows of its text
    MessagePump._mounted_event                        when a widget can take keys
    Screen._modal                                     a dialog, which leaves what is below in sight
    Screen._on_timer_update, _layout_required,        a change of a pane that comes in the tick of a layout, or of a
      _repaint_required, _dirty_widgets,              change of a screen below
      _compositor, _compositor_refresh
    StylesCache.get_inner_outer                       a cache that kept every widget there ever was
    linux_driver.WriterThread                         replaced by a writer that never makes the event loop wait
    LinuxDriver._writer_thread, _file, _app, _debug   that writer, where it writes to, and for whom
    rich: Console._color_system                       how many colours the terminal has

Why the screen goes its own way where Textual has one:

* No `.tcss`: panes are placed for the terminal's size by a pure function (`main_layout.arrange`), and coloured by role
  (`theme.ROLES`), down to one-coloured ASCII. A style sheet would say both a second time.
* No `BINDINGS`: a key means what the table of actions (`keymap`) says in the place that has the focus when it is the
  key's turn. Textual looks a key up where the focus is when it comes in, so one typed ahead would reach the wrong pane.
* No reactives: a picture is drawn from one frozen snapshot, and panes compare lines. A reactive for each value would
  ask for a refresh for each, and widgets would hold copies of what the snapshot holds.
"""

import asyncio
from typing import Any

from rich.color import ColorSystem
from rich.console import Console
from rich.text import Text
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual._keyboard_protocol import MODIFIER_FUNCTIONAL_KEYS
from textual._styles_cache import StylesCache
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers import linux_driver
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.widgets import Input

Update = ChopsUpdate | LayoutUpdate
"""What a picture changes: pieces of lines, or all lines of a region."""

MODIFIERS = frozenset((*MODIFIER_FUNCTIONAL_KEYS, "caps_lock", "num_lock", "scroll_lock"))
"""Keys that some terminals report although nothing was typed yet."""

# It remembers a pair of colours for each `self`, and so keeps the lines of the last 1024 widgets, closed or not.
# Its first argument is called `cls`, and as a method of the class it remembers what it is to.
StylesCache.get_inner_outer = classmethod(vars(StylesCache)["get_inner_outer"])  # type: ignore[assignment, method-assign]

__all__ = [
    "MODIFIERS",
    "ChopsUpdate",
    "LayoutUpdate",
    "PrivateApp",
    "PrivateDriver",
    "PrivateScreen",
    "Update",
    "XTermParser",
]


class PrivateApp(App, inherit_bindings=False):
    """An application that may paint by itself, and that ends in its own words."""

    def paint(self, screen: Screen, update: Update) -> bool:
        """Send an update of a screen to the terminal; False: Textual is to do it."""
        return False

    def failed(self) -> None:
        """An exception that nobody expected is being handled; afterwards the application ends."""

    def can_paint(self) -> bool:
        """Whether a picture may go out now: neither in a batch of changes, nor before or after the screen's time."""
        return not self._batch_count and self._running and not self._closed

    def shows_at_once(self) -> bool:
        """Whether the terminal holds a picture back until it has all of it (synchronized output, mode 2026)."""
        return self._sync_available

    @property
    def driver(self) -> Any:
        """The terminal's driver; None where there is none yet."""
        return self._driver

    async def press_in_line(self, key: str) -> bool:
        """What an input line does with a key that is no text; False if that is nothing."""
        return await self._check_bindings(key)

    def _display(self, screen: Screen, renderable: Any) -> None:
        if not isinstance(renderable, Update) or not self.paint(screen, renderable):
            super()._display(screen, renderable)

    def _fatal_error(self) -> None:
        self.failed()
        self._close_messages_no_wait()


class PrivateScreen(Screen, inherit_bindings=False):
    """A screen that loses no change: one that comes while panes are being placed is drawn, too."""

    def _on_timer_update(self) -> None:
        # Textual forgets what was to be drawn anew in two cases: where a layout is due in the same tick, which sends
        # only what has moved; and where the screen itself is to be drawn, which it takes for all of it. It is not where
        # a screen below has changed: then it is the regions of that one, which may have another size.
        changed = set(self._dirty_widgets) if self._layout_required or self._repaint_required else set()
        super()._on_timer_update()
        if changed and self.is_current:
            self._compositor.update_widgets(changed)
            self._compositor_refresh()


class PrivateInput(Input):
    """A line to type in that shows its text as the terminal may have it."""

    def shown(self, text: str) -> str:
        """What is drawn, a character for each character."""
        return text

    @property
    def _value(self) -> Text:
        return Text(self.shown(self.value), no_wrap=True, overflow="ignore", end="")


class PrivateDriver(linux_driver.LinuxDriver):
    """Textual's driver with another writer: a class that is made with a file and has the methods of a thread."""

    writer_class: type

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.debug = self._debug
        self.app = self._app

    def write_to(self, file: Any) -> None:
        """Where the screen is drawn, instead of standard error."""
        self._file = file

    def started_writer(self) -> Any:
        """The writer; None before the terminal is in application mode and after."""
        return self._writer_thread

    def start_application_mode(self) -> None:
        """Take the terminal over, with our writer in place of Textual's."""
        vars(linux_driver)["WriterThread"] = self.writer_class  # the one place where it is made
        super().start_application_mode()


def mounted(node: MessagePump) -> asyncio.Event:
    """Set once a widget or a screen is mounted, and can take keys."""
    return node._mounted_event


def make_modal(screen: Screen) -> None:
    """Let what is below a screen stay in sight."""
    screen._modal = True


def color_system(console: Console) -> ColorSystem | None:
    """How many colours the terminal has; None: no more than its own two."""
    return None if console.color_system is None else console._color_system
