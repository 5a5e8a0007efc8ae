"""The clock that nobody sets."""

import time

_KIND = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def uptime() -> float:
    """Seconds since the machine was started, those asleep too where the system can tell (Linux)."""
    return time.clock_gettime(_KIND)
