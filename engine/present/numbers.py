"""Numbers, sizes and times as people read them: for the commands and the screen alike.

Forms for sentences, and shorter ones, of at most five cells, for narrow columns. A dot stands where nothing is known.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

from engine.base.messages import msg
from engine.base.units import UNKNOWN as UNKNOWN
from engine.base.units import bytes_text as bytes_text
from engine.base.units import duration as duration
from engine.base.units import plain_number as plain_number
from engine.base.units import short_duration as short_duration
from engine.base.units import size as size

# times


def age(seconds: float) -> str:
    """As `short_duration`, but never in seconds: what nobody watches must not tick."""
    return "<1m" if seconds < 60 else f"{int(seconds // 60)}m" if seconds < 3600 else short_duration(seconds)


def ago(timestamp: float | None, now: float | None = None) -> str:
    """`5m ago`, in its largest unit only and never before it is full; empty for never."""
    if timestamp is None:
        return ""
    seconds = max(0.0, (time.time() if now is None else now) - timestamp)
    for unit, unit_seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= unit_seconds:
            return f"{seconds // unit_seconds:.0f}{unit} ago"
    return f"{seconds:.0f}s ago"


def date_time(timestamp: float | None) -> str:
    """`2026-09-21 14:13:20`, local time; empty for never."""
    return "" if timestamp is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))


def clock(timestamp: float, today: float | None = None) -> str:
    """Local time; of another day than that of `today` (now), date and time without seconds."""
    text = date_time(timestamp)
    same_day = text[:10] == date_time(time.time() if today is None else today)[:10]
    return text[11:] if same_day else text[:16]


# numbers


def count(number: float | None) -> str:
    """Whole, with groups: `1,240`, `48,112`."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def short(number: float | None) -> str:
    """At most five cells: `981`, `11.4k`, `56.2M`."""
    if number is None or not math.isfinite(number):
        return UNKNOWN
    for unit in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5:
            digits = 0 if not unit or abs(number) >= 99.95 else 1
            return f"{number:.{digits}f}{unit}"
        number /= 1000
    return f"{number:.0f}P"


def metric(value: float | None) -> str:
    """A loss or score with four significant digits; a dash where there is none."""
    return "—" if value is None else f"{value:.4g}"


def short_metric(value: float | None) -> str:
    """A loss or score in five cells or fewer, as many digits as fit: `0.871`, `12.41`, `1e-05`."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return "nan" if value != value else "inf"
    size = abs(value)
    if size >= 1000 or 0 < size < 0.0005:
        return f"{value:.0e}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"


def percent(value: float | None) -> str:
    """`85%`, of a value in percent."""
    return UNKNOWN if value is None else f"{value:.0f}%"


# settings and words


def setting_text(value: Any) -> str:
    """A setting's value on one line, as flags and files have it: `1e-5`, `true`, `q_proj, v_proj`; a dash for none."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(setting_text, value)) or "—"
    if isinstance(value, dict):
        import json  # 3 ms, which few commands need to pay

        return json.dumps(value, ensure_ascii=False) if value else "—"
    return plain_number(value).replace("\n", "⏎") or "—"


def auto_text(chosen: Any) -> str:
    """What a setting that is `auto` becomes."""
    return msg("auto → {chosen}", chosen=setting_text(chosen))


def plural(amount: int, singular: str, many: str = "") -> str:
    """`1 run`, `3 runs`."""
    return f"{amount:,} {singular if amount == 1 else many or singular + 's'}"


def listed(items: Sequence[object], most: int = 4) -> str:
    """`40, 41 and 42`; beyond `most` only how many."""
    words = [str(item) for item in items]
    if len(words) > most:
        shown = ", ".join(words[: most - 1])
        return msg("{words} and {hidden} more", words=shown, hidden=len(words) - most + 1)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
