"""Dialogs over a screen: what all share, a notice, and a question before something is destroyed."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.geometry import Region

from engine.base.messages import msg
from engine.present.text import wrap
from tui.render.line import Line
from tui.screens.key_screen import KeyScreen, place
from tui.terminal.textual_private import make_modal
from tui.widgets.pane import Pane
from tui.widgets.rows import Rows

BoxT = TypeVar("BoxT", bound=Pane)


class Dialog(KeyScreen, Generic[BoxT]):
    """A box in the middle of the screen; what is below stays in sight. `pane` is the box that `box` made."""

    pane: BoxT

    def __init__(self) -> None:
        super().__init__()
        make_modal(self)

    def box(self) -> BoxT:
        """The pane in the middle, made once."""
        raise NotImplementedError

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        """Its size on a terminal of so many cells; cut to the terminal by the caller."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        self.pane = self.box()
        yield self.pane

    @property
    def footer_words(self) -> str:
        """The keys of the dialog."""
        return self.pane.hint()

    @property
    def complete(self) -> bool:
        """Once its box has been drawn."""
        return self.pane.drawn

    def seen(self, event: events.Key) -> bool:
        """Whether the box was on the terminal when a key was typed: one typed before cannot be meant for what it
        says."""
        return self.drawn_at is not None and event.time > self.drawn_at

    def on_mount(self) -> None:
        """Take the focus, and let the footer below name the keys of the dialog."""
        self.styles.background = "transparent"
        self.set_focus(self.pane)

    def repainted(self) -> None:
        """The footer below shows the box's hint."""
        self.footers_changed()

    def on_unmount(self) -> None:
        """Give the footer below back to its screen."""
        self.footers_changed()

    def on_resize(self, event: events.Resize) -> None:
        self.place_box()

    def place_box(self) -> None:
        """Put the box in the middle."""
        place(self.pane, self.box_region())
        self.show_prompt()

    def box_region(self) -> Region:
        """Where that is."""
        width, height = self.app.size
        box_width, box_height = map(min, self.box_size(width, height), (width, height))
        return Region((width - box_width) // 2, (height - box_height) // 2, max(0, box_width), max(0, box_height))

    def on_screen_resume(self) -> None:
        self.place_box()


class Words(Pane):
    """A text with keys in the frame."""

    scope = "any"

    def __init__(self, heading: str, lines: Sequence[Line], keys: str) -> None:
        super().__init__(id="dialog")
        self._heading, self._body, self._keys = heading, lines, keys

    def title(self) -> str:
        return self._heading

    def hint(self) -> str:
        return self._keys

    def body(self, width: int, height: int) -> list[Line]:
        return [[], *([("  ", "text"), *line] for line in self._body)]


class Notice(Dialog[Words]):
    """Something worth knowing, until the next key, which does nothing else: it was typed to close this."""

    own_places = ("any",)
    columns = 70
    keys = "any key goes on"

    def __init__(self, heading: str, words: Sequence[str] = ()) -> None:
        super().__init__()
        self.heading, self.words = heading, words
        self.lines = self._wrapped(64)

    def _wrapped(self, width: int) -> list[Line]:
        return [[(part, "text")] for text in self.words for part in wrap(text, width)]

    def box(self) -> Words:
        if self.words:
            self.lines = self._wrapped(min(64, self.app.size.width - 10))
        return Words(self.heading, self.lines, self.keys)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 4, self.columns), len(self.lines) + 4

    def key(self, event: events.Key) -> bool:
        """Close, once it has been seen."""
        if self.seen(event):
            self.app.pop_screen()
        return True

    def on_click(self) -> None:
        """As a key."""
        self.key(events.Key("enter", "\r"))


class Confirm(Dialog[Words]):
    """Asks before something is lost: the one question that all of that goes through.

    Only `y` confirms, no key that opens a question and not enter, which is pressed too easily; and only typed after the
    question was on the terminal: held, stuttering or in one write, no key that was typed for something else answers.
    """

    own_places = ("any",)
    no = ("n", "N", "q", "escape")

    def __init__(self, heading: str, lost: Sequence[str], done: Callable[[], Any], verb: str) -> None:
        super().__init__()
        self.heading, self.done, self.verb = heading, done, verb
        self.lost = [part for text in lost for part in wrap(text, 64)]

    def box(self) -> Words:
        keys = msg("y {verb} · n or esc: no", verb=self.verb)
        return Words(self.heading, [[(text, "text")] for text in self.lost], keys)

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 4, 70), len(self.lost) + 4

    def key(self, event: events.Key) -> bool:
        """Do it on `y`, and close on what says no; every other key leaves the question standing."""
        if not self.seen(event):
            return True
        if event.character == "y":
            self.app.pop_screen()
            self.done()
        elif event.key in self.no:
            self.app.pop_screen()
            self.host.say("nothing was changed")
        return True


class ListBox(Rows):
    """A list in a box."""

    scope = "list"

    def __init__(self, heading: str, keys: str) -> None:
        super().__init__(id="dialog")
        self._heading, self._keys = heading, keys

    def title(self) -> str:
        return self._heading

    def hint(self) -> str:
        return self._keys
