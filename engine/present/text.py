"""Numbers as people read them, and text as a terminal may show it, measured in its cells."""

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.units import bytes_text as bytes_text

_EIGHTHS = " ▏▎▍▌▋▊▉"
_UNCUT = 10_000
"""Cells of a line that goes into a file or another program: nothing is cut there."""


def visible(text: str) -> str:
    """Control characters written out, line breaks kept: what comes from a file or a name is shown, never obeyed."""
    return "".join(char if char == "\n" or char.isprintable() else _written_out(char) for char in text)


def _written_out(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def marked(text: str, trained: bool) -> str:
    """Trained text in reverse video, or in brackets where there is no terminal."""
    if not trained:
        return text
    return f"\x1b[7m{text}\x1b[0m" if sys.stdout.isatty() else f"⟦{text}⟧"


def trained_text(pieces: Iterable[tuple[str, bool]], indent: str = "") -> str:
    """(text, trained) pieces as lines that begin with `indent`: what is trained is marked, line ends are seen as ⏎."""
    text = "".join(marked(visible(text).replace("\n", "⏎\n"), trained) for text, trained in pieces)
    return indent + text.removesuffix("\n").replace("\n", f"\n{indent}")


def duration(seconds: float) -> str:
    """`42s`, `3m 05s`, `2h 11m`, `3d 4h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def ago(moment: float | None) -> str:
    """`5m ago`, in its largest unit only; empty for never."""
    if moment is None:
        return ""
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit} ago"
    return f"{seconds:.0f}s ago"


def clock(moment: float) -> str:
    """Local time; with its date where that is not today's."""
    then, now = time.localtime(moment), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)


def number(value: float | None) -> str:
    """Four significant digits, and a dash for what is not known."""
    return "—" if value is None else f"{value:.4g}"


def value_text(value: object) -> str:
    """A setting's value on one line; of a long one, such as a path, the end."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = text if len(text) <= 60 else f"…{text[-59:]}"
    return text.replace("\n", "⏎") or "—"


def plain(text: str) -> str:
    """One line of text in which nothing is left for the terminal to obey; what cannot be shown becomes �."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("�" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char for char in text)


def first_line(text: str) -> str:
    """What is wrong, of a message whose further lines say where; for a place that has one line."""
    return text.partition("\n")[0]


def cells(text: str) -> int:
    """The columns a terminal needs: two for a Chinese character, none for a combining mark."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def cut(text: str, limit: int) -> str:
    """At most so many cells, with an ellipsis where something was cut."""
    if cells(text) <= limit:
        return text
    kept, used = "", 1
    for char in text:
        used += cells(char)
        if used > limit:
            break
        kept += char
    return kept + "…" if limit > 0 else ""


def wrap_cells(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Lines of at most `width` cells, broken at spaces where there are any; Chinese between any two characters.

    The first line begins with `first`, those after it with `rest`.
    """
    rows: list[str] = []
    lead, text = first, text.rstrip()
    while True:
        left, end = width - cells(lead), 0
        while end < len(text) and (left := left - cells(text[end])) >= 0:
            end += 1
        end = max(end, 1)
        if end >= len(text):
            return [*rows, (lead + text).rstrip()]
        if text[end] != " ":
            ends = (at for at in range(end, 0, -1) if text[at - 1] == " " or cells(text[at - 1]) == 2)
            end = next((at for at in ends if text[:at].strip()), end)
        rows.append((lead + text[:end]).rstrip())
        lead, text = rest, text[end:].lstrip(" ")


def fit(text: str, width: int, right: bool = False) -> str:
    """Cut or padded to so many cells."""
    text = cut(text, width)
    padding = " " * (width - cells(text))
    return padding + text if right else text + padding


def gauge(share: float | None, width: int) -> str:
    """In eighths of a cell; spaces where nothing is known, dots for what is left."""
    if share is None:
        return " " * width
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width, "·")


def blocks(share: float, width: int) -> str:
    """A bar in whole cells."""
    full = round(share * width)
    return "█" * full + "·" * (width - full)


def output_width(unknown: int = _UNCUT) -> int:
    """The terminal's, or $COLUMNS; where there is neither, lines are as long as they need to be, or `unknown`."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return shutil.get_terminal_size().columns
    return unknown


def print_json(value: Any) -> None:
    """Indented, Chinese readable; escaped where the output's encoding has no room for it, so that it stays JSON."""
    import json  # 3 ms, which --help need not pay

    narrow = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(value, indent=2, ensure_ascii=narrow, default=str))


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    right: bool = False
    least: int | None = None
    """To how many cells it may shrink where the line is too long; None: it does not."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, indent: int = 0) -> list[str]:
    """Lines of at most `width` cells, titles first. A column without a single entry is left out.

    Where the lines would be too long, the columns that may shrink give way, the widest first.
    """
    shown = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    grid = [[plain(row[index]) for index in shown] for row in rows]
    kept = [columns[index] for index in shown]
    widths = [max(cells(kept[i].title), *(cells(row[i]) for row in grid)) for i in range(len(kept))]
    while indent + sum(widths) + 2 * (len(widths) - 1) > width:
        able = [i for i, column in enumerate(kept) if column.least is not None and widths[i] > column.least]
        if not able:
            break
        widths[max(able, key=widths.__getitem__)] -= 1
    lines = []
    for row in [[column.title for column in kept], *grid]:
        pieces = [fit(text, widths[i], kept[i].right) for i, text in enumerate(row)]
        lines.append(cut(" " * indent + "  ".join(pieces), width).rstrip())
    return lines
