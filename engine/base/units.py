"""Sizes, times and rates as people read them: one form for sentences, and one of at most five cells for columns.

Bytes are in powers of 1,024 for memory, files and disks alike.
"""

import math

MIB, GIB = 1 << 20, 1 << 30
UNKNOWN = "·"
"""Stands in a column where nothing is known."""


def bytes_text(count: float) -> str:
    """`512 B`, `9.1 MiB`, `14.5 GiB`: powers of 1,024, as nvidia-smi, torch, free -h and df -h count.

    A card sold with 80 GB has 80 GiB, so that what a run needs and what a card has are the same unit.
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < (1000 if unit == "B" else 1023.95):
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def size(count: float | None, digits: int = 1) -> str:
    """Bytes in at most five cells: `512B`, `160M`, `1.3G`, `62.1G`; powers of 1,024 as in `bytes_text`."""
    if count is None:
        return UNKNOWN
    for unit in ("B", "k", "M", "G", "T"):
        if count < 999.5:
            exact = (count < 9.95 and unit != "B") or (count < 99.95 and unit in "GT")
            return f"{count:.{digits if exact else 0}f}{unit}"
        count /= 1024
    return f"{count:.0f}P"


def duration(seconds: float) -> str:
    """`0.4s`, `42s`, `3m 05s`, `10m`, `2h 11m`, `3d 4h`."""
    if 0.05 <= seconds < 0.95:
        return f"{seconds:.1f}s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m" + (f" {whole % 60:02d}s" if whole % 60 else "")
    if whole < 86400:
        return f"{whole // 3600}h" + (f" {minutes:02d}m" if (minutes := whole % 3600 // 60) else "")
    return f"{whole // 86400}d" + (f" {hours}h" if (hours := whole % 86400 // 3600) else "")


def short_duration(seconds: float | None) -> str:
    """At most five cells: `42s`, `3m05`, `38m`, `2h11`, `3d4h`, `210d`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60:02d}"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}"
    if whole < 100 * 86400:
        return f"{whole // 86400}d{whole % 86400 // 3600}h"
    return f"{whole // 86400}d"


def plain_number(value: object) -> str:
    """A setting's number as people type it: `2e-4`, not 0.0002; `0.05`, not 5e-2; of anything else its text."""
    if not isinstance(value, float):
        return str(value)
    digits = f"{value:.6g}"
    if "e" not in digits and not 0 < abs(value) < 0.01:
        return digits
    mantissa, _, exponent = f"{value:.5e}".partition("e")
    short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return short if "e" in digits else min(digits, short, key=len)
