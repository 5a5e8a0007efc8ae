"""The actor: one thread through which the screen asks for changes, so that the event loop never waits for a lock.

A writer may have to wait 10 s and more for a backup or a stuck disk. What was asked is done in order; the outcome
comes back as a message.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from textual.message import Message

from engine.base.errors import EngineError
from engine.base.workspace import Workspace


class Acted(Message):
    """What came of something that was asked for."""

    def __init__(
        self,
        what: str,
        outcomes: list[Any],
        error: str = "",
        then: Callable[[Any], Any] | None = None,
        warning: str = "",
    ) -> None:
        self.what = what
        """The words of the request, such as 'stop'."""
        self.outcomes = outcomes
        self.error = error
        self.then = then
        self.warning = warning
        """What was done may come to nothing, and why: told once."""
        super().__init__()


class CommandThread(threading.Thread):
    """`make` gives what is acted through: `engine.control.Control`, which with `readonly` refuses, or a stand-in."""

    def __init__(
        self,
        workspace: Workspace,
        post: Callable[[Message], Any],
        make: Callable[[], Any] | None = None,
        readonly: bool = False,
        busy_seconds: float | None = None,
    ) -> None:
        """`busy_seconds`: how long a change waits for another process that writes; None: as a command does."""
        super().__init__(name="actor", daemon=True)
        self._workspace = workspace
        self._post = post
        self._make = make or self._control
        self._readonly, self._busy_seconds = readonly, busy_seconds
        self._asked: queue.SimpleQueue = queue.SimpleQueue()
        self._doing: tuple[str, float] | None = None

    def doing(self) -> tuple[str, float]:
        """What is being done now and for how many seconds; ('', 0) when nothing is."""
        doing = self._doing
        return (doing[0], time.monotonic() - doing[1]) if doing else ("", 0.0)

    def do(self, what: str, *calls: Callable[[Any], Any], then: Callable[[list[Any]], Any] | None = None) -> None:
        """Call each of `calls` with the control; `then` gets the list of outcomes, on the event loop.

        After `stop` nothing is done any more.
        """
        if self.ident is None:
            self.start()
        self._asked.put((what, calls, then))

    def stop(self) -> None:
        self._asked.put(None)

    def run(self) -> None:
        control = None
        told = ""
        while (asked := self._asked.get()) is not None:
            what, calls, then = asked
            outcomes: list[Any] = []
            error = ""
            self._doing = what, time.monotonic()
            try:
                if control is None:
                    control = self._make()
                for call in calls:
                    outcomes.append(call(control))
            except EngineError as fault:
                error = f"{fault.message}. {fault.hint}".strip().rstrip(".") if fault.hint else fault.message
            except Exception as fault:  # told on the screen; the next request is tried all the same
                error = f"{type(fault).__name__}: {fault}"
            self._doing = None
            before, told = told, control.warning if control is not None else ""
            self._post(Acted(what, outcomes, error, then, told if told != before else ""))
        if control is not None:
            control.close()

    def _control(self) -> Any:
        from engine.control import Control  # with the writer: 10 ms, needed at the first change only

        if self._busy_seconds is None:
            return Control(self._workspace, self._readonly)
        return Control(self._workspace, self._readonly, busy_seconds=self._busy_seconds)
