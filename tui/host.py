"""What screens and panes may ask of the application, and panes of their screen: the types by which they know both, so
that neither has to be imported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from textual import events
from textual.dom import DOMNode
from textual.widget import Widget

from engine.base.workspace import Workspace
from tui.data.command_thread import CommandThread
from tui.data.feed import Feed
from tui.data.message_log import MessageLog, StatusText
from tui.data.snapshot import Snapshot, View
from tui.keymap import Action, Keymap
from tui.render.theme import Palette
from tui.settings import Memory


@dataclass(frozen=True, slots=True)
class Undo:
    """What takes back something that was done from here."""

    calls: tuple[Callable[[Any], Any], ...]
    """What to ask of `engine.control.Control`."""
    done: str
    """What is said when it has been done."""
    run_id: int
    """Where the cursor goes then."""


class Host(Protocol):
    """The application as screens and panes see it; `tui.app.FinetopApp` is it."""

    workspace: Workspace
    keymap: Keymap
    palette: Palette
    snapshot: Snapshot
    """The last one that came."""
    view: View
    """What the feed is asked to read."""
    feed: Feed
    commands: CommandThread
    memory: Memory
    messages: MessageLog
    host_name: str
    undoes: list[Undo]
    """What can be undone of what was done since the screen was opened, in its order."""
    readonly: bool
    question_pending: bool
    """Whether what a question will say is being read: the next key is its answer."""
    paused: bool

    @property
    def status_text(self) -> StatusText:
        """The line above the footer."""

    def say(self, text: str, role: str = "text", whole: str = "") -> None:
        """Put a text above the footer, and into the log, `whole` in its place where the line is short for it."""

    def withdraw(self, line: str = "") -> None:
        """Take the last answer to a key off, if it is this line: it is no longer so."""

    def say_whole(self, heading: str, text: str, role: str = "text") -> None:
        """The same, and shown whole where it is too long for that line."""

    def notice(self, heading: str, words: Sequence[str]) -> None:
        """Show something worth knowing until the next key, and keep it in the log."""

    def copy_to_clipboard(self, text: str) -> None: ...

    def push_screen(self, screen: Any) -> Any: ...

    def call_later(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> bool: ...

    async def dispatch_keys(self) -> None:
        """Carry out the keys that were typed ahead, as far as the screen in front is ready."""

    def show_events(self, snapshot: Snapshot) -> None:
        """Log what has happened, and put the last of it above the footer."""

    def remember_sort(self, sort: str | None, descending: bool) -> None:
        """The order of the list, for the next visit to this workspace."""

    def go_to_run(self, run_id: int) -> None:
        """Put the cursor of the list on a run, as soon as it is there."""

    def pause(self, paused: bool) -> None:
        """Stop the picture, or let it go on."""

    def leave(self) -> None:
        """Close the screen; runs go on."""


class ScreenHost(Protocol):
    """A screen as its panes see it; `tui.screens.key_screen.KeyScreen` is it."""

    @property
    def prompt(self) -> Widget | None:
        """The line in which a text is asked for now."""

    @property
    def prompt_label(self) -> str: ...

    def places(self) -> Sequence[str]: ...

    def disabled_reason(self, action: Action) -> str:
        """Why an action cannot be done now; empty when it can."""

    def ask(
        self,
        label: str,
        text: str,
        done: Callable[[str], Any],
        changed: Callable[[str], Any] | None = None,
        given_up: Callable[[], Any] | None = None,
    ) -> None:
        """Ask for a line of text."""

    def end_prompt(self) -> None: ...

    def focus_changed(self) -> None:
        """Keys mean something else from now on."""

    def key(self, event: events.Key) -> bool:
        """Do what a key means; False if it means nothing."""

    def perform(self, action: Action) -> None:
        """Do an action, or say why it cannot be done."""

    def repainted(self) -> None:
        """A pane says something else, perhaps in its hint."""


def host_of(node: DOMNode) -> Host:
    """The application that a screen or a pane belongs to. Textual types it as any `App`."""
    return cast(Host, node.app)


def screen_of(node: DOMNode) -> ScreenHost:
    """The screen that a pane stands on. Textual types it as any `Screen`."""
    return cast(ScreenHost, node.screen)
