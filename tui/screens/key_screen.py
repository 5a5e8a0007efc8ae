"""What all screens share: keys by the table of actions, and news from the app."""

from typing import TYPE_CHECKING

from textual import events
from textual.dom import DOMNode
from textual.geometry import Offset, Region
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from engine.base.messages import msg
from tui.data.snapshot import Snapshot
from tui.keymap import Action
from tui.widgets.prompt import Prompt

if TYPE_CHECKING:
    from tui.data.feed import Answer
    from tui.host import Host


class KeyScreen(Screen, inherit_bindings=False):
    """A screen whose keys come from the table.

    A key is looked up in the places of the focused widget, then in the screen's own. The action `runs.mark` is done by
    the method `do_runs_mark` of the focused widget, one of its parents, the screen, or the app.
    """

    BINDINGS = []
    AUTO_FOCUS = ""
    own_places: tuple[str, ...] = ("any",)
    prompt: Prompt | None = None
    """The line in which a text is asked for now."""

    @property
    def host(self) -> "Host":
        return self.app  # type: ignore[return-value]

    def places(self) -> tuple[str, ...]:
        focused = self.focused
        if isinstance(focused, Input):
            return ("any",)
        own = focused.places() if focused is not None and hasattr(focused, "places") else ()
        return (*own, *(place for place in self.own_places if place not in own))

    def take(self, snapshot: Snapshot) -> None:
        """A new snapshot has come."""

    def answered(self, answer: "Answer") -> None:
        """A question to the feed has been answered."""

    @property
    def ready(self) -> bool:
        """Whether keys can be heard already: what they are meant for is there. Focus and cursor follow a key at once,
        `has_focus` and messages later: what keys do must not go by these."""
        return True

    def key(self, event: events.Key) -> bool:
        """Do what a key means on this screen; False if it means nothing. Called by the app, in the order of typing."""
        key = event.character if event.is_printable and event.character and event.character != " " else event.key
        action = self.host.keymap.action(key, self.places())
        if action is not None:
            self.perform(action)
        return action is not None

    def perform(self, action: Action) -> None:
        """Do an action, or say why not."""
        if why := self.refusal(action):
            self.host.say(why, "warning")
            return
        for target in self.listeners():
            if method := getattr(target, action.method, None):
                method()
                return

    def listeners(self) -> list[DOMNode]:
        """Who may do an action, the nearest first: the focused widget, its parents, the screen, the app."""
        return (self.focused or self).ancestors_with_self

    def refusal(self, action: Action) -> str:
        """Why an action cannot be done now; empty when it can."""
        if action.writes and self.host.readonly:
            return msg("{label}: the screen was opened with --readonly", label=action.label)
        return ""

    # asking for a text

    def ask(self, prompt: Prompt) -> None:
        self.end_prompt()
        prompt.before, self.prompt = self.focused, prompt
        self.mount(prompt)
        self.set_focus(prompt)  # at once: the text may have been typed ahead, or pasted
        self.show_prompt()

    def end_prompt(self) -> None:
        prompt, self.prompt = self.prompt, None
        if prompt is not None:
            # The focus first: a focused widget that goes hands it to whoever stands next.
            self.set_focus(prompt.before)
            prompt.remove()
            self.app.cursor_position = Offset(0, 0)
            self.show_prompt()

    def show_prompt(self) -> None:
        """A line for a text has come or gone: lay it out, and tell what is asked for."""

    def give_up(self) -> bool:
        """Leave the text that is asked for as it was; False if none is."""
        prompt = self.prompt
        self.end_prompt()
        if prompt is not None and prompt.given_up is not None:
            prompt.given_up()
        return prompt is not None

    def do_any_back(self) -> None:
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()


def lay(widget: Widget, region: Region | None) -> None:
    """Show a widget in a region of the screen; nowhere, where there is none."""
    widget.display = region is not None
    if region is not None:
        widget.styles.offset = region.offset
        widget.styles.width, widget.styles.height = region.width, region.height
