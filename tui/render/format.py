"""Numbers, times and text as the screen shows them: pure functions, widths in terminal cells.

A line on the screen is a list of spans, `(text, role)`; `theme` knows what a role looks like. Text that was made
elsewhere (names, logs, answers, messages) goes through `visible` once, where it enters a line.
"""

import math
import time
import unicodedata
from collections.abc import Iterable, Sequence

from rich.cells import get_character_cell_size

from engine.base.messages import msg
from engine.base.units import gib_text
from engine.present.text import gauge as gauge

Span = tuple[str, str]
"""Text and the role it plays: 'text', 'dim', 'failed', ... (see `theme.ROLES`)."""
Line = list[Span]

_MOST_MARKS = 2
"""Combining marks kept on one character; text made to climb over its neighbours carries dozens."""


def visible(text: str) -> str:
    """Text as one line that a terminal can only show: control and format characters are written out.

    What terminals disagree about is made plain, so that widths are certain: flags become letters, skin tones and
    variation selectors are left out.
    """
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], 0
    for char in text:
        code = ord(char)
        if 0x1F1E6 <= code <= 0x1F1FF:
            shown.append(chr(ord("A") + code - 0x1F1E6))
        elif 0x1F3FB <= code <= 0x1F3FF or 0xFE00 <= code <= 0xFE0F:
            continue
        elif char == "\t":
            shown.append("  ")
        elif char == "\n":
            shown.append("⏎")
        elif not char.isprintable() and unicodedata.category(char) != "Zs":
            shown.append(f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
        elif unicodedata.category(char) == "Zs":
            shown.append(" ")
        elif get_character_cell_size(char) == 0:
            marks += 1
            if marks <= _MOST_MARKS and shown:
                shown.append(char)
            continue
        else:
            shown.append(char)
        marks = 0
    return "".join(shown)


def cells(text: str) -> int:
    """How many cells a text takes that `visible` has seen."""
    if text.isascii():
        return len(text)
    return sum(map(get_character_cell_size, text))


def cut(text: str, width: int, sign: str = "…") -> str:
    """At most so many cells, with a sign where something was cut; a wide character is never halved."""
    if cells(text) <= width:
        return text
    room = width - cells(sign)
    if room < 0:
        return sign[: max(0, width)]
    kept, used = [], 0
    for char in text:
        used += get_character_cell_size(char)
        if used > room:
            break
        kept.append(char)
    return "".join(kept) + sign


def fit(text: str, width: int, align: str = "<") -> str:
    """Cut or padded to exactly so many cells."""
    text = cut(text, width)
    missing = width - cells(text)
    if align == ">":
        return " " * missing + text
    if align == "^":
        return " " * (missing // 2) + text + " " * (missing - missing // 2)
    return text + " " * missing


def line_cells(line: Iterable[Span]) -> int:
    return sum(cells(text) for text, _ in line)


def fit_line(line: Iterable[Span], width: int, role: str = "text") -> Line:
    """A line cut or padded to exactly so many cells."""
    fitted: Line = []
    left = width
    spans = [span for span in line if span[0]]
    for index, (text, span_role) in enumerate(spans):
        taken = cells(text)
        if taken > left or (taken == left and any(rest for rest, _ in spans[index + 1 :])):
            fitted.append((cut(text + "  ", left), span_role))
            left -= cells(fitted[-1][0])
            break
        fitted.append((text, span_role))
        left -= taken
        if left == 0:
            break
    if left > 0:
        fitted.append((" " * left, role))
    return fitted


def crop_line(line: Iterable[Span], start: int, width: int) -> Line:
    """The cells from `start` on, padded to `width`: horizontal scrolling. Half a wide character becomes a space."""
    found: Line = []
    at = 0
    for text, role in line:
        kept = []
        for char in text:
            size = get_character_cell_size(char)
            if at >= start:
                kept.append(char)
            elif at + size > start:
                kept.append(" " * (at + size - start))
            at += size
        if kept:
            found.append(("".join(kept), role))
    return fit_line(found, width)


def wrap(text: str, width: int) -> list[str]:
    """Text broken at spaces, or anywhere in words that are too long; Chinese breaks between any two characters."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line, line_width = "", 0
        for word in _words(visible(paragraph)):
            word_width = cells(word)
            if line and line_width + cells(word.rstrip()) > width:
                lines.append(line.rstrip())
                line, line_width = "", 0
                word = word.lstrip()
                word_width = cells(word)
            while word_width > width:
                head = cut(word, width, "") or word[:1]
                lines.append(head)
                word = word[len(head) :]
                word_width = cells(word)
            line += word
            line_width += word_width
        lines.append(line.rstrip())
    return lines


def _words(text: str) -> Iterable[str]:
    """Pieces between which a line may break, each with the spaces that follow it."""
    word = ""
    for char in text:
        if get_character_cell_size(char) == 2:
            if word:
                yield word
                word = ""
            yield char
            continue
        if word and word[-1] == " " and char != " ":
            yield word
            word = ""
        word += char
    if word:
        yield word


# numbers


def duration(seconds: float | None) -> str:
    """At most five cells: `42s`, `38m`, `2h11`, `3d4h`, `210d`; a dot where nothing is known."""
    if seconds is None or not math.isfinite(seconds):
        return "·"
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole}s"
    if whole < 6000:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}"
    if whole < 100 * 86400:
        return f"{whole // 86400}d{whole % 86400 // 3600}h"
    return f"{whole // 86400}d"


def moment(when: float | None) -> str:
    """`2026-09-21 14:13:20`, by the clock of this place."""
    return "" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def clock(when: float, last: float) -> str:
    """The time of a day that is that of `last`; before it, the date and no seconds."""
    text = moment(when)
    return text[11:] if text[:10] == moment(last)[:10] else text[5:16]


def age(seconds: float) -> str:
    """As a duration, but never in seconds: what nobody watches must not tick."""
    return "<1m" if seconds < 60 else f"{int(seconds // 60)}m" if seconds < 6000 else duration(seconds)


def ago(seconds: float) -> str:
    """`just now`, `4 m ago`."""
    return "just now" if seconds < 5 else f"{duration(seconds)} ago"


def count(number: float | None) -> str:
    """Whole numbers with thin groups as people read steps: `1 240`, `48 112`."""
    return "·" if number is None else f"{number:,.0f}".replace(",", " ")


def short(number: float | None) -> str:
    """At most five cells: `981`, `11.4k`, `56.2M`."""
    if number is None or not math.isfinite(number):
        return "·"
    for unit in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5:
            digits = 0 if not unit or abs(number) >= 99.95 else 1
            return f"{number:.{digits}f}{unit}"
        number /= 1000
    return f"{number:.0f}P"


def loss(value: float | None) -> str:
    """Five cells or fewer, as many digits as fit: `0.871`, `12.41`, `1e-05`."""
    if value is None:
        return "·"
    if not math.isfinite(value):
        return "nan" if value != value else "inf"
    size = abs(value)
    if size >= 1000 or 0 < size < 0.0005:
        return f"{value:.0e}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"


def number(value: object) -> str:
    """A setting's number as people write it: `2e-4`, `0.05`, `16`."""
    if isinstance(value, float):
        text = f"{value:.6g}"
        if "e" in text:
            mantissa, exponent = text.split("e")
            return f"{mantissa}e{int(exponent)}"
        return text
    return str(value)


def setting(value: object) -> str:
    """A setting's value on one line; a dot where there is none, a dash where it is empty."""
    if value is None:
        return "·"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return visible(", ".join(map(str, value))) or "—"
    if isinstance(value, dict):
        return visible(", ".join(f"{key}={item}" for key, item in value.items())) or "—"
    return visible(number(value)) or "—"


def gib(amount: float | None, digits: int = 1) -> str:
    """GPU memory in GiB: `62.1G`, `512M`."""
    return "·" if amount is None else gib_text(amount, digits)


def size(amount: float | None) -> str:
    """Bytes of files and disks: `160M`, `1.3G`; powers of 1,024 like `gib` and the commands (engine.base.units)."""
    if amount is None:
        return "·"
    for unit in ("B", "k", "M", "G", "T"):
        if amount < 999.5:
            return f"{amount:.0f}{unit}" if amount >= 9.95 or unit == "B" else f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.0f}P"


def percent(value: float | None) -> str:
    return "·" if value is None else f"{value:.0f}%"


def plural(amount: int, one: str, many: str = "") -> str:
    """`1 run`, `3 runs`."""
    return f"{amount} {one if amount == 1 else many or one + 's'}"


def listed(items: Sequence[object], most: int = 4) -> str:
    """`40, 41 and 42`; beyond `most` only how many."""
    words = [str(item) for item in items]
    if len(words) > most:
        return msg("{words} and {num_words} more", words=", ".join(words[: most - 1]), num_words=len(words) - most + 1)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
