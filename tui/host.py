"""What a screen may ask of the application: the one type by which screens know it, so that they need not import it."""

from collections.abc import Callable
from typing import Any, Protocol

from engine.base.workspace import Workspace
from tui.data.command_thread import CommandThread
from tui.data.feed import Feed
from tui.data.snapshot import Snapshot, View
from tui.keymap import Keymap
from tui.settings import Memory


class Host(Protocol):
    """The application as its screens see it; `tui.app.FinetopApp` is it."""

    workspace: Workspace
    keymap: Keymap
    snapshot: Snapshot
    """The last one that came."""
    view: View
    """What the feed is asked to read."""
    feed: Feed
    actor: CommandThread
    memory: Memory
    deleted: list[list[int]]
    """Runs moved to the trash since the screen was opened, in the order of the deletions."""
    readonly: bool
    asking: bool
    """Whether a question to the feed is under way."""
    paused: bool

    def say(self, text: str, role: str = "text", at: float | None = None) -> None: ...

    def copy_to_clipboard(self, text: str) -> None: ...

    def call_later(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> bool: ...

    async def hear(self) -> None: ...

    def tell_event(self, snapshot: Snapshot) -> None: ...

    def looked(self, when: float) -> None: ...

    def pause(self, paused: bool) -> None: ...

    def leave(self) -> None: ...
