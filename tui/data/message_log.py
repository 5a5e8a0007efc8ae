"""All that the screen has said since it was opened, and which of it stands above the footer."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

KEPT = 1000
READ_SECONDS = 1.0
"""An answer to a key stays at least so long, whatever is typed: somebody may want to read it."""
ANSWER_SECONDS = 300.0
"""So long an answer to a key stays where no other key is pressed."""
SEEN_SECONDS = 60.0
"""An event this old has been seen by whoever presses a key; while nobody does, it stays, with its age."""


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """One message, whole."""

    time: float
    """UTC epoch seconds: when it was said, or when what it tells of happened."""
    text: str
    """With line breaks where it has any."""
    role: str = "text"


@dataclass(frozen=True, slots=True)
class StatusText:
    """The line above the footer."""

    text: str = ""
    role: str = "text"
    at: float | None = None
    """When the event happened that it tells of; None: it answers a key."""
    run_id: int | None = None
    """Which run's event it is."""


class MessageLog:
    """Messages in the order they were said."""

    def __init__(self, clock: Callable[[], float] = time.time, timer: Callable[[], float] = time.monotonic) -> None:
        self.messages: deque[LoggedMessage] = deque(maxlen=KEPT)
        self.status = StatusText()
        self.added = 0
        """How many there have been: changes when the log does."""
        self._clock, self._timer = clock, timer
        self._said_at = 0.0

    def add(self, text: str, role: str = "text", at: float | None = None) -> None:
        """Keep a message without showing it; the same one said again at once is kept once."""
        last = self.messages[-1] if self.messages else None
        if last is not None and (last.text, last.role) == (text, role) and at is None:
            self.messages.pop()
        self.messages.append(LoggedMessage(self._clock() if at is None else at, text, role))
        self.added += 1

    def show(
        self, line: str, role: str = "text", at: float | None = None, whole: str = "", run_id: int | None = None
    ) -> None:
        """Put a line above the footer and keep it; `whole` is kept in its place where the line leaves something out."""
        self.add(whole or line, role, at)
        self.status = StatusText(line, role, at, run_id)
        self._said_at = self._timer()

    def run_went_on(self, run_id: int | None) -> bool:
        """A run is no longer as an event left it: somebody has acted, perhaps on another screen. Whether the line above
        the footer told of it, and is gone."""
        if run_id is None or self.status.run_id != run_id:
            return False
        self.status = StatusText()
        return True

    def grown_old(self) -> bool:
        """Time has passed: the answer to a key is of no use to whoever looks now. Whether the line changed."""
        if not self.status.text or self.status.at is not None or self._timer() - self._said_at < ANSWER_SECONDS:
            return False
        self.status = StatusText()
        return True

    def is_seen(self, status: StatusText) -> bool:
        """Whether it tells of an event that is no longer new."""
        return status.at is not None and self._clock() - status.at >= SEEN_SECONDS

    def withdraw(self, line: str = "") -> bool:
        """What the last key was answered is no longer so: take it off, if it is this line. Whether the line changed."""
        status = self.status
        if not status.text or status.at is not None or line not in ("", status.text):
            return False
        self.status = StatusText()
        return True

    def key_pressed(self) -> bool:
        """A key was pressed: what it may have been the answer to, or has been seen, goes. Whether the line changed."""
        status = self.status
        if not status.text or self._timer() - self._said_at < READ_SECONDS:
            return False
        if status.at is not None and not self.is_seen(status):
            return False
        self.status = StatusText()
        return True
