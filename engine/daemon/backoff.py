"""The longer something keeps dying, the less often it is started again."""

import time

_FIRST_SECONDS, _LONGEST_SECONDS = 2.0, 300.0


class Backoff:
    """Of one thing that is kept going; by `monotonic()`."""

    def __init__(self) -> None:
        self.failures = 0
        self._next_start = 0.0

    def failed(self) -> None:
        """It has died, or may: the pause before another start doubles."""
        pause = min(_FIRST_SECONDS * 2.0 ** min(self.failures, 10), _LONGEST_SECONDS)
        self.failures += 1
        self._next_start = time.monotonic() + pause

    def went_well(self) -> None:
        self.failures = 0

    def seconds_left(self) -> float:
        """Until it may be started; 0: now."""
        return max(0.0, self._next_start - time.monotonic())

    def settled(self) -> bool:
        """It has gone on for longer than any pause."""
        return time.monotonic() > self._next_start + _LONGEST_SECONDS
