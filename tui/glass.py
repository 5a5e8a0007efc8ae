"""What the terminal shows now, cell by cell, so that only what differs is sent.

Textual sends every dirty region whole, from the left edge of its widget, with a full set of attributes for each piece.
Over a slow link that is what one waits for. Here each update is compared with the cells that were sent before; what
goes out are the runs of cells that differ, and for each change of style only the attributes that change.
"""

from collections.abc import Iterable
from functools import lru_cache

from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.strip import Strip

Pen = tuple[str, str, str]
"""Attributes, foreground, background as SGR codes."""
Cell = tuple[str, Pen]
"""A character with its combining marks; empty for the right half of a wide one."""

_PLAIN: Pen = ("", "", "")
_UNKNOWN: Cell = ("\0", _PLAIN)
_BRIDGE = 3
"""So many unchanged cells between two changed ones are cheaper to send again than to jump over."""


class Glass:
    def __init__(self, color_system: ColorSystem | None) -> None:
        self._color_system = color_system
        self._lines: list[list[Cell]] = []
        self._width = 0
        self._pen: Pen | None = None
        """What the terminal writes with now; None: unknown. It is not set back after each update, which saves 40 bytes
        an update."""

    def forget(self) -> None:
        """Whatever the terminal shows, it is not what we remember: the next update sends all of it."""
        self._lines = []
        self._pen = None

    def changes(self, update: LayoutUpdate | ChopsUpdate, width: int, height: int) -> str:
        """Take an update in; the bytes that make the terminal show it."""
        if width != self._width or height != len(self._lines):
            self._width = width
            self._lines = [[_UNKNOWN] * width for _ in range(height)]
        out = _Output(self._pen)
        if isinstance(update, LayoutUpdate):
            for y, strips in enumerate(update.strips, update.region.y):
                self._line(out, y, update.region.x, strips)
        else:
            for y in dict.fromkeys(y for y, _, _ in update.spans):
                for x, strip in update.chops[y].items():
                    if strip is not None:
                        self._line(out, y, x, (strip,))
        self._pen = out.pen
        return out.text()

    def _line(self, out: "_Output", y: int, x: int, strips: Iterable[Strip]) -> None:
        if y >= len(self._lines):
            return
        shown = self._lines[y]
        wanted: list[Cell] = []
        for strip in strips:
            for text, style, control in strip:
                if not control:
                    _put(wanted, text, _PLAIN if style is None else _pen(style, self._color_system))
        del wanted[max(0, self._width - x) :]
        before = shown[x : x + len(wanted)]
        if before == wanted:
            return
        differs = [index for index, cell in enumerate(wanted) if cell != before[index]]
        start = previous = differs[0]
        for index in [*differs[1:], len(wanted) + _BRIDGE + 2]:
            if index - previous <= _BRIDGE + 1:
                previous = index
                continue
            while start > 0 and not wanted[start][0]:
                start -= 1  # never begin in the middle of a wide character
            while previous + 1 < len(wanted) and not wanted[previous + 1][0]:
                previous += 1
            out.run(x + start, y, wanted[start : previous + 1])
            start = previous = index
        shown[x : x + len(wanted)] = wanted


class _Output:
    """Escape sequences for runs of cells, with as few changes of place and style as will do."""

    def __init__(self, pen: Pen | None) -> None:
        self._parts: list[str] = []
        self.pen = pen

    def run(self, x: int, y: int, cells: list[Cell]) -> None:
        parts = self._parts
        parts.append(f"\x1b[{y + 1};{x + 1}H")
        for index, (char, pen) in enumerate(cells):
            if not char:
                continue
            if pen != self.pen:
                parts.append(_turn(self.pen, pen))
                self.pen = pen
            parts.append(char)
            if len(char) > 1 or char >= "\U0001f000":
                # Terminals disagree about how far these move the cursor.
                width = 2 if index + 1 < len(cells) and not cells[index + 1][0] else 1
                parts.append(f"\x1b[{y + 1};{x + index + width + 1}H")

    def text(self) -> str:
        return "".join(self._parts)


def _put(cells: list[Cell], text: str, pen: Pen) -> None:
    if text.isascii():
        cells += [(char, pen) for char in text]
        return
    for char in text:
        size = get_character_cell_size(char)
        if size == 0:
            if cells:
                at = len(cells) - 1
                while at and not cells[at][0]:
                    at -= 1
                cells[at] = (cells[at][0] + char, cells[at][1])
        else:
            cells.append((char, pen))
            if size == 2:
                cells.append(("", pen))


@lru_cache(maxsize=1024)
def _pen(style: Style, color_system: ColorSystem | None) -> Pen:
    attributes = Style(
        bold=style.bold, dim=style.dim, italic=style.italic, underline=style.underline, reverse=style.reverse
    )
    codes = Strip.render_ansi(attributes, ColorSystem.STANDARD)
    front = back = ""
    if color_system is not None:
        if style.color is not None and not style.color.is_default:
            front = ";".join(style.color.downgrade(color_system).get_ansi_codes())
        if style.bgcolor is not None and not style.bgcolor.is_default:
            back = ";".join(style.bgcolor.downgrade(color_system).get_ansi_codes(False))
    return codes, front, back


@lru_cache(maxsize=4096)
def _turn(old: Pen | None, new: Pen) -> str:
    """From one style to another."""
    if new == _PLAIN:
        return "\x1b[m"
    if old is None or (old[0] and old[0] != new[0]):
        codes = ["0", *new]  # there is no short way to take an attribute away
    else:
        codes = [new[0] if new[0] != old[0] else ""]
        codes.append("" if new[1] == old[1] else new[1] or "39")
        codes.append("" if new[2] == old[2] else new[2] or "49")
    return f"\x1b[{';'.join(filter(None, codes))}m"
