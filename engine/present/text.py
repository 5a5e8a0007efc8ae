"""Text as a terminal may show it, measured in its cells: for the commands and the screen alike."""

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from engine.base.escape import escape, escaped

_EIGHTHS = " ▏▎▍▌▋▊▉"
_UNCUT = 10_000
"""Cells of a line that goes into a file or another program: nothing is cut there."""
_WIDEST = 60
"""Cells of a table's column that may shrink, at most."""
_FOLDERS = re.compile(r"(?<![^\s(\"'=])(?:~|\.\.?)?/(?:[^\s/:]+/)+(?=[^\s/])")
"""All of a path but its last name; what stands after `http:` is none, and one with spaces keeps what is before them."""
_MOST_MARKS = 2
"""Combining marks kept on one character; text made to climb over its neighbours carries dozens."""


# escaping


def visible(text: str) -> str:
    """Control characters written out, line breaks kept: what comes from a file or a name is shown, never obeyed."""
    return escape(text, keep="\n")


def one_line(text: str) -> str:
    """Text of any origin as one line whose width is certain; line breaks become ⏎, control characters are written out.

    What terminals disagree about is made plain: flags become letters, skin tones and variation selectors are left out,
    and joiners between characters that are no ASCII: an astronaut becomes a woman and a rocket.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for index, char in enumerate(text):
        code = ord(char)
        if char in "\u200c\u200d" and 0 < index < len(text) - 1 and min(text[index - 1], text[index + 1]) > "\x7f":
            continue
        if 0x1F3FB <= code <= 0x1F3FF or 0xFE00 <= code <= 0xFE0F:
            continue
        if char.isprintable() and char_cells(char) == 0:
            marks += 1
            if marks <= _MOST_MARKS and shown:
                shown.append(char)
            continue
        marks = 0
        if 0x1F1E6 <= code <= 0x1F1FF:
            shown.append(chr(ord("A") + code - 0x1F1E6))
        elif char in _ONE_LINE:
            shown.append(_ONE_LINE[char])
        elif unicodedata.category(char) == "Zs":
            shown.append(" ")
        else:
            shown.append(char if char.isprintable() else escaped(char))
    return "".join(shown)


_ONE_LINE = {"\t": "  ", "\n": "⏎"}


def char_by_char(text: str) -> str:
    """As `one_line`, but every character is one: for a line in which a cursor counts them. What cannot be shown, or
    joins its neighbours into one sign, is a dot."""
    return text if text.isascii() and text.isprintable() else "".join(map(_one_char, text))


def _one_char(char: str) -> str:
    code = ord(char)
    if 0x1F1E6 <= code <= 0x1F1FF:
        return chr(ord("A") + code - 0x1F1E6)
    if unicodedata.category(char) == "Zs":
        return " "
    joins = 0x1F3FB <= code <= 0x1F3FF or 0xFE00 <= code <= 0xFE0F
    return char if char.isprintable() and not joins else "·"


def first_line(text: str) -> str:
    """What is wrong, of a message whose further lines say where; for a place that has one line."""
    return text.partition("\n")[0]


def marked(text: str, trained: bool) -> str:
    """Trained text in reverse video, or in brackets where there is no terminal."""
    if not trained:
        return text
    return f"\x1b[7m{text}\x1b[0m" if sys.stdout.isatty() else f"⟦{text}⟧"


def trained_text(pieces: Iterable[tuple[str, bool]], indent: str = "") -> str:
    """(text, trained) pieces as lines that begin with `indent`: what is trained is marked, line ends are seen as ⏎."""
    text = "".join(marked(visible(text).replace("\n", "⏎\n"), trained) for text, trained in pieces)
    return indent + text.removesuffix("\n").replace("\n", f"\n{indent}")


# cells


@lru_cache(maxsize=4096)
def char_cells(char: str) -> int:
    """The columns of a terminal that one character takes: 0, 1 or 2. Rich counts the same, which a test holds equal."""
    if any(char in span for span in _NO_CELL) or unicodedata.category(char) in ("Mn", "Me", "Mc", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" or any(char in span for span in _WIDE) else 1


class _Span:
    """Characters from `first` to `last`."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = chr(first), chr(last)

    def __contains__(self, char: str) -> bool:
        return self.first <= char <= self.last


_NO_CELL = (
    _Span(0x1160, 0x11FF),
    _Span(0x3164, 0x3164),
    _Span(0xFFA0, 0xFFA0),
    _Span(0xD7B0, 0xD7FF),
    _Span(0x1F3FB, 0x1F3FF),
)
"""Vowels and finals of Hangul, which join the letter before them; skin tones."""
_WIDE = (_Span(0x2630, 0x2637), _Span(0x268A, 0x268F), _Span(0x4DC0, 0x4DFF), _Span(0x1D300, 0x1D376))
"""Trigrams, hexagrams and counting rods: wide since Unicode 16, which the unicodedata of Python 3.11 is older than."""


def cells(text: str) -> int:
    """The columns a terminal needs: two for a Chinese character, none for a combining mark."""
    return len(text) if text.isascii() else sum(map(char_cells, text))


def cut(text: str, width: int, sign: str = "…") -> str:
    """At most so many cells, with a sign where something was cut; a wide character is never halved."""
    if cells(text) <= width:
        return text
    room = width - cells(sign)
    if room < 0:
        return sign[: max(0, width)]
    used = 0
    for index, char in enumerate(text):
        used += char_cells(char)
        if used > room:
            return text[:index] + sign
    return text + sign


def without_folders(text: str, width: int) -> str:
    """A message where it fits, else with only the last name of each path: what happened is worth more than where."""
    return text if cells(text) <= width else _FOLDERS.sub("…/", text)


def fit(text: str, width: int, align: Literal["<", ">", "^"] = "<") -> str:
    """Cut or padded to exactly so many cells."""
    text = cut(text, width)
    missing = width - cells(text)
    if align == ">":
        return " " * missing + text
    if align == "^":
        return " " * (missing // 2) + text + " " * (missing - missing // 2)
    return text + " " * missing


def wrap(text: str, width: int, first: str = "", indent: str = "") -> list[str]:
    """Lines of at most `width` cells, broken at spaces where there are any; Chinese between any two characters.

    The first line begins with `first`, those after it with `indent`, unless that leaves no room. A line break in the
    text begins a new line. Where there is no room at all there are no lines.
    """
    lines: list[str] = []
    for paragraph in text.split("\n") if width > 0 else ():
        lines += _wrapped(one_line(paragraph).rstrip(), width, indent if lines else first, indent)
    return lines


def _wrapped(text: str, width: int, lead: str, indent: str) -> Iterator[str]:
    """Takes time in proportion to the text: a log line may be a megabyte."""
    start = 0
    while True:
        lead = lead if cells(lead) < width else ""
        left, end = width - cells(lead), start
        while end < len(text) and (left := left - char_cells(text[end])) >= 0:
            end += 1
        if end >= len(text):
            yield (lead + text[start:]).rstrip()
            return
        if end == start:  # a wide character where there is room for half of one
            yield lead + "…"
            end += 1
        else:
            if text[end] != " ":
                end = next((at for at in range(end, start, -1) if _may_break(text, at, start)), end)
            yield (lead + text[start:end]).rstrip()
        start = next((at for at in range(end, len(text)) if text[at] != " "), len(text))
        lead = indent


def _may_break(text: str, index: int, start: int) -> bool:
    """Whether a line that begins at `start` may end before `index`; not where it would hold spaces only."""
    if text[index - 1] == " ":
        return not text[start:index].isspace()
    return 2 in map(char_cells, text[index - 1 : index + 1])


def gauge(share: float | None, width: int) -> str:
    """A bar in eighths of a cell; spaces where nothing is known, dots for what is left."""
    if share is None:
        return " " * width
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width, "·")


def blocks(share: float, width: int) -> str:
    """A bar in whole cells."""
    full = round(share * width)
    return "█" * full + "·" * (width - full)


# output


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
    """A column of `table`."""

    title: str
    right: bool = False
    least: int | None = None
    """To how many cells it may shrink where the line is too long; None: it does not."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, indent: int = 0) -> list[str]:
    """Lines of at most `width` cells, titles first. A column without a single entry is left out.

    Where the lines would be too long, the columns that may shrink give way, the widest first.
    """
    filled = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    grid = [[one_line(row[index]) for index in filled] for row in rows]
    kept = [columns[index] for index in filled]
    widths = [max(cells(kept[i].title), *(cells(row[i]) for row in grid)) for i in range(len(kept))]
    # One endless name must not push every other row apart; where nothing is cut, it does so to its own row alone.
    widths = [min(w, _WIDEST) if column.least is not None else w for w, column in zip(widths, kept, strict=True)]
    while indent + sum(widths) + 2 * (len(widths) - 1) > width:
        shrinkable = [i for i, column in enumerate(kept) if column.least is not None and widths[i] > column.least]
        if not shrinkable:
            break
        widths[max(shrinkable, key=widths.__getitem__)] -= 1
    lines = []
    for row in [[column.title for column in kept], *grid]:
        pieces = [
            text if width >= _UNCUT and cells(text) > widths[i] else fit(text, widths[i], ">" if kept[i].right else "<")
            for i, text in enumerate(row)
        ]
        lines.append(cut(" " * indent + "  ".join(pieces), width).rstrip())
    return lines
