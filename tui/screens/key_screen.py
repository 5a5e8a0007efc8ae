"""What all screens share: keys by the table of actions, asking for a text, and news from the application."""

from collections.abc import Callable, Sequence
from typing import Any

from textual import events
from textual.geometry import Offset, Region
from textual.widget import Widget
from textual.widgets import Input
from textual.widgets.input import Selection

from engine.base.messages import msg
from tui.data.feed import Answer
from tui.data.snapshot import Snapshot
from tui.host import Host, host_of
from tui.keymap import Action, written
from tui.terminal.textual_private import PrivateScreen
from tui.widgets.bars import Footer
from tui.widgets.pane import Pane
from tui.widgets.prompt import CompletingPrompt, Prompt

_MOST_STEPS_BACK = 10
"""More than `esc` ever takes to close a screen."""


class KeyScreen(PrivateScreen, inherit_bindings=False):
    """A screen whose keys come from the table.

    A key is looked up in the places of the focused widget, then in the screen's own. The action `runs.mark` is done by
    the method `action_runs_mark` of the first listener that has one: the focused widget, its parents, the screen, the
    objects that hold the screen's actions, the application.
    """

    BINDINGS = []
    AUTO_FOCUS = ""
    own_places: tuple[str, ...] = ("any",)
    prompt: Prompt | None = None
    """The line in which a text is asked for now."""
    _wanted: Widget | None = None
    """Where the focus was put last, by a key or the mouse."""
    drawn_at: float | None = None
    """When the terminal had the first whole picture of it, by `time.monotonic`; keys have the time they were read."""

    @property
    def complete(self) -> bool:
        """Whether all of it is in what was drawn last."""
        return True

    @property
    def host(self) -> Host:
        """The application."""
        return host_of(self)

    @property
    def footer_words(self) -> str:
        """What the footer of the screen below says while this one is in front; empty: that screen's own keys."""
        return ""

    def places(self) -> tuple[str, ...]:
        """Where keys are looked up now, the narrowest place first."""
        focused = self.focused
        if isinstance(focused, Input):
            return ("line", "any") if isinstance(focused, CompletingPrompt) else ("any",)
        narrow = focused.places() if focused is not None and hasattr(focused, "places") else ()
        return (*narrow, *(name for name in self.own_places if name not in narrow))

    def set_focus(self, widget: Widget | None, scroll_visible: bool = True, from_app_focus: bool = False) -> None:
        """Also remember where it was put, for when that has been out of sight. A line for a text keeps it, whatever is
        clicked on: what is typed on would be taken for keys."""
        if widget is not None and not isinstance(widget, Input):
            self._wanted = widget
            if self.prompt is not None:
                return
            widget = self.focus_place()
        if widget is None and self.focused is not None and self.focused.is_attached and self.focused.display:
            return  # a click beside everything
        self._focus(widget, scroll_visible, from_app_focus)

    def _focus(self, widget: Widget | None, scroll_visible: bool = False, from_app_focus: bool = False) -> None:
        """Keys mean something else from now on."""
        super().set_focus(widget, scroll_visible, from_app_focus)
        self.footers_changed()

    def footers_changed(self) -> None:
        """Other keys can be pressed now: also the footer of a screen below names those of the one in front."""
        for screen in self.app.screen_stack:
            for footer in screen.query(Footer):
                footer.repaint()

    def focus_place(self) -> Widget | None:
        """What has the focus: the line for a text while there is one, else where it was put last, or as long as that is
        hidden, the first pane in sight."""
        if self.prompt is not None or self._wanted is None or self._wanted.display:
            return self.prompt or self._wanted
        return next((pane for pane in self.query(Pane) if pane.display), self._wanted)

    def settle_focus(self) -> None:
        """Give the focus to what is to have it: layouts hide and show panes, and lines for a text come and go."""
        widget = self.focus_place()
        if widget is not None and widget is not self.focused:
            self._focus(widget)

    def take(self, snapshot: Snapshot) -> None:
        """A new snapshot has come."""

    def answered(self, answer: Answer) -> None:
        """A question to the feed has been answered."""

    def go_to_run(self, run_id: int) -> None:
        """The cursor of the list of runs should go to a run."""

    def status_changed(self) -> None:
        """The line above the footer has another text."""

    def focus_changed(self) -> None:
        """A pane shows something else, for which other keys may be meant."""

    def repainted(self) -> None:
        """A pane has been computed again."""

    @property
    def ready(self) -> bool:
        """Whether keys can be dispatched already: what they are meant for is there. Focus and cursor follow a key at
        once, `has_focus` and messages later: what keys do must not go by these."""
        return True

    def key(self, event: events.Key) -> bool:
        """Do what a key means on this screen; False if it means nothing. Called by the app, in the order of typing."""
        key = event.character if event.is_printable and event.character and event.character != " " else event.key
        action = self.host.keymap.action(key, self.places())
        if action is not None:
            self.perform(action)
        return action is not None

    def key_unknown(self, event: events.Key) -> None:
        """A key that means nothing here says so: the line above the footer would go on speaking of the one before."""
        name = event.character if event.is_printable and event.character else written(event.key)
        help_key = next(map(written, self.host.keymap.keys("any.help")), "?")
        self.host.say(msg("{key} does nothing here; {help_key} shows the keys", key=name, help_key=help_key), "dim")

    @property
    def takes_text(self) -> bool:
        """Whether what is typed or pasted now is text."""
        return isinstance(self.focused, Input)

    def put_text(self, text: str) -> None:
        """Take what was typed, one letter or many, or pasted."""
        line = self.focused
        if isinstance(line, Input):
            line.replace(text, *line.selection)

    def perform(self, action: Action) -> None:
        """Do an action, or say why it cannot be done."""
        if reason := self.disabled_reason(action):
            self.host.say(reason, "warning")
            return
        for listener in self.listeners():
            if method := getattr(listener, action.method, None):
                method(*action.arguments)
                return

    def listeners(self) -> Sequence[object]:
        """Who may do an action, the nearest first: the focused widget, its parents, the screen, the app."""
        return (self.focused or self).ancestors_with_self

    def disabled_reason(self, action: Action) -> str:
        """Why an action cannot be done now; empty when it can."""
        if action.writes and self.host.readonly:
            return msg("{label}: the screen was opened with --readonly", label=action.label)
        return ""

    # asking for a text

    def ask(
        self,
        label: str,
        text: str,
        done: Callable[[str], Any],
        changed: Callable[[str], Any] | None = None,
        given_up: Callable[[], Any] | None = None,
        replaced: bool = False,
    ) -> None:
        """Ask for a line of text, `text` to begin with, which what is typed goes on behind, or with `replaced` takes
        the place of; `done` gets it on enter, `changed` at every letter."""
        prompt = Prompt(label, text, done, changed, given_up)
        if replaced:
            prompt.selection = Selection(0, len(text))
        self.open_prompt(prompt)

    def open_prompt(self, prompt: Prompt) -> None:
        """Show a line for a text, in place of one that may be open."""
        self.end_prompt()
        self.prompt = prompt
        self.mount(prompt)
        self.settle_focus()  # at once: the text may have been typed ahead, or pasted
        self.show_prompt()

    def end_prompt(self) -> None:
        """Close the line, if one is open; the focus goes back to where it was."""
        prompt, self.prompt = self.prompt, None
        if prompt is not None:
            # The focus first: a focused widget that goes hands it to whoever stands next.
            self.settle_focus()
            prompt.remove()
            self.app.cursor_position = Offset(0, 0)
            self.show_prompt()

    @property
    def prompt_label(self) -> str:
        """What is asked for now; empty while nothing is."""
        return self.prompt.label if self.prompt is not None else ""

    def show_prompt(self) -> None:
        """A line for a text has been opened or closed: place it, and name what is asked for."""

    def give_up(self) -> bool:
        """Leave the text that is asked for as it was; False if none is."""
        prompt = self.prompt
        self.end_prompt()
        if prompt is not None and prompt.given_up is not None:
            prompt.given_up()
        return prompt is not None

    def action_any_back(self) -> None:
        """Close this screen, unless it is the last."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def action_any_close(self) -> None:
        """Go back until this screen is closed, however many steps that is."""
        stack = self.app.screen_stack
        for _ in range(_MOST_STEPS_BACK):
            if len(stack) < 2 or self.app.screen is not self:
                return
            self.action_any_back()


def place(widget: Widget, region: Region | None) -> None:
    """Show a widget in a region of the screen; nowhere, where there is none."""
    widget.display = region is not None
    if region is not None:
        widget.styles.offset = region.offset
        widget.styles.width, widget.styles.height = region.width, region.height
