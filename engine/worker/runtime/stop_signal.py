"""Stop requests. Its own file, since it must be in place before torch is imported."""

import os
import signal


class StopRequest:
    """Set by SIGTERM or SIGINT: finish the step, save, leave. A second SIGINT leaves at once.

    A second SIGTERM does not: a restarted daemon cannot know whether the daemon before it had sent the first.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            os._exit(128 + number)
        self.requested = True
