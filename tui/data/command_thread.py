"""One thread through which the screen asks for changes, so that the event loop never waits for a lock.

A writer may have to wait 10 s and more for a backup or a stuck disk. Commands are carried out in order; what came of
one comes back as a message.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from textual.message import Message

from engine.base.errors import EngineError
from engine.base.workspace import Workspace


class CommandDone(Message):
    """What came of a command."""

    def __init__(
        self,
        verb: str,
        outcomes: list[Any],
        error: str = "",
        then: Callable[[Any], Any] | None = None,
        warning: str = "",
    ) -> None:
        self.verb = verb
        """What was asked for, such as 'stop'; empty where the screen asked by itself."""
        self.outcomes = outcomes
        self.error = error
        self.then = then
        self.warning = warning
        """Why what was done may come to nothing; given once."""
        super().__init__()


class CommandThread(threading.Thread):
    """`make` gives what carries commands out: `engine.control.Control`, which refuses if `readonly`, or a stand-in."""

    def __init__(
        self,
        workspace: Workspace,
        post: Callable[[Message], Any],
        make: Callable[[], Any] | None = None,
        readonly: bool = False,
        busy_seconds: float | None = None,
    ) -> None:
        """`busy_seconds`: how long a change waits for another process that writes; None: as a command does."""
        super().__init__(name="commands", daemon=True)
        self._workspace = workspace
        self._post = post
        self._make = make or self._control
        self._readonly, self._busy_seconds = readonly, busy_seconds
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._running: tuple[str, float] | None = None

    def running(self) -> tuple[str, float]:
        """The command that is being carried out and for how many seconds; ('', 0) when none is."""
        running = self._running
        return (running[0], time.monotonic() - running[1]) if running else ("", 0.0)

    def do(self, verb: str, *calls: Callable[[Any], Any], then: Callable[[list[Any]], Any] | None = None) -> None:
        """Call each of `calls` with the control; `then` gets the list of outcomes, on the event loop.

        After `stop` nothing is done any more.
        """
        if self.ident is None:
            self.start()
        self._requests.put((verb, calls, then))

    def stop(self) -> None:
        """End the thread once what is under way is done."""
        self._requests.put(None)

    def run(self) -> None:
        """Carry out commands, one after the other, until `stop`."""
        control = None
        last_warning = ""
        while (request := self._requests.get()) is not None:
            verb, calls, then = request
            outcomes: list[Any] = []
            error = ""
            self._running = verb, time.monotonic()
            try:
                if control is None:
                    control = self._make()
                for call in calls:
                    outcomes.append(call(control))
            except EngineError as fault:
                error = f"{fault.message}. {fault.hint}".strip().rstrip(".") if fault.hint else fault.message
            except Exception as fault:  # shown on the screen; the next request is tried all the same
                error = f"{type(fault).__name__}: {fault}"
            self._running = None
            warning = control.warning if control is not None else ""
            self._post(CommandDone(verb, outcomes, error, then, warning if warning != last_warning else ""))
            last_warning = warning
        if control is not None:
            control.close()

    def _control(self) -> Any:
        from engine.control import Control  # with the writer: 10 ms, needed at the first change only

        if self._busy_seconds is None:
            return Control(self._workspace, self._readonly)
        return Control(self._workspace, self._readonly, busy_seconds=self._busy_seconds)
