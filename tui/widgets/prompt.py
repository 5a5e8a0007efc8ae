"""The line in which a text is asked for, where the status text stands otherwise."""

from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Any

from textual.widgets import Input

from engine.present.text import cells, char_by_char
from tui.host import screen_of
from tui.terminal.textual_private import PrivateInput


class Prompt(PrivateInput):
    """Shown by `KeyScreen.ask`. Enter gives the text to `done`; escape calls `given_up`."""

    DEFAULT_CSS = """
    Prompt { position: absolute; height: 1; border: none; padding: 0; background: $background; color: $foreground; }
    Prompt:focus { border: none; background-tint: $foreground 0%; }
    """

    def __init__(
        self,
        label: str,
        value: str,
        done: Callable[[str], Any],
        changed: Callable[[str], Any] | None = None,
        given_up: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(value=value, compact=True, select_on_focus=False)
        self.label, self.done, self.changed, self.given_up = label, done, changed, given_up
        self.cursor_blink = False  # a blinking cursor writes twice a second

    def shown(self, text: str) -> str:
        """A name or a paste may hold what a terminal would obey."""
        return char_by_char(text)

    def on_resize(self) -> None:
        """Text may have been typed ahead, before there was any room to scroll in."""
        self.call_after_refresh(self._show_cursor)

    def _show_cursor(self) -> None:
        """Scroll to the cursor. Textual does while one letter comes after the other, but not behind a long paste."""
        left = cells(char_by_char(self.value[: self.cursor_position]))
        if not self.scroll_offset.x <= left < self.scroll_offset.x + self.size.width:
            self.scroll_to(x=max(0, left - self.size.width + 2), animate=False, force=True)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Hand the text on while it is typed."""
        event.stop()
        self.call_after_refresh(self._show_cursor)
        # It comes by message: perhaps when the text has been given up already.
        if self.changed is not None and screen_of(self).prompt is self:
            self.changed(event.value)

    async def action_submit(self) -> None:
        """At once, not by a message as Textual's lines do: what is typed behind enter is meant for the screen."""
        screen_of(self).end_prompt()
        self.done(self.value)


class CompletingPrompt(Prompt):
    """A line for one of many names: `tab` completes what is typed, as far as it is certain."""

    def __init__(
        self,
        label: str,
        offers: Callable[[str], Sequence[str]],
        done: Callable[[str], Any],
        changed: Callable[[str], Any] | None = None,
    ) -> None:
        """`offers` gives the names that a text may stand for: those that begin with it, or are found by it."""
        super().__init__(label, "", done, changed)
        self.offers = offers

    def action_line_complete(self) -> None:
        """To what all names begin with, or to the only one."""
        names = self.offers(self.value)
        common = commonprefix(names)
        if len(names) == 1 or common.startswith(self.value):
            self.value = common
            self.cursor_position = len(common)
