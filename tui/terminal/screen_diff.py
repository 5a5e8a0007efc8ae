"""What the terminal shows now, cell by cell, so that only what differs is sent.

Textual sends every dirty region whole, from the left edge of its widget, with a full set of attributes for each piece.
Over a slow link that is what people wait for. Here each update is compared with the cells that were sent before. What
goes out are pieces of rows that differ, in the order of their styles where that is shorter: in true colour a change of
colour costs 19 bytes, a jump 4 to 8. A blank is written in whatever colour is set.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from rich.style import Style
from textual.strip import Strip

from tui.terminal.textual_private import LayoutUpdate, Update

Pen = tuple[str, str, str]
"""Attributes, foreground, background as SGR codes."""
Cell = tuple[str, Pen]
"""A character with its combining marks; empty for the right half of a wide one."""

_PLAIN: Pen = ("", "", "")
_UNKNOWN: Cell = ("\0", _PLAIN)
_ANY = "*"
"""The foreground of a blank: none is seen."""
_BRIDGE_BYTES = 4
"""Unchanged cells between two changed ones are sent again, not jumped over, when they take no more than this."""


@dataclass(slots=True)
class _Piece:
    """Neighbouring cells of a row that are written in one style."""

    y: int
    x: int
    pen: Pen
    chars: list[str]
    end: int
    """The column after the last cell."""
    sure: bool = True
    """Whether the cursor stands there afterwards: terminals disagree about some characters."""


class ScreenDiff:
    """The cells that the terminal shows, and the pen it writes with."""

    def __init__(self, color_system: ColorSystem | None) -> None:
        self._color_system = color_system
        self._lines: list[list[Cell]] = []
        self._width = 0
        self._pen: Pen | None = None
        """What the terminal writes with now; None: unknown. It is not set back after each update, which saves 40 bytes
        an update."""

    def forget(self) -> None:
        """Whatever the terminal shows, it is not what is remembered here: the next update sends all of it."""
        self._lines = []
        self._pen = None

    def changes(self, update: Update, width: int, height: int) -> str:
        """Take an update in; the bytes that make the terminal show it."""
        if width != self._width or height != len(self._lines):
            self._width = width
            self._lines = [[_UNKNOWN] * width for _ in range(height)]
        pieces: list[_Piece] = []
        if isinstance(update, LayoutUpdate):
            for y, strips in enumerate(update.strips, update.region.y):
                self._line(pieces, y, update.region.x, strips)
        else:
            for y in dict.fromkeys(y for y, _, _ in update.spans):
                for x, strip in update.chops[y].items():
                    if strip is not None:
                        self._line(pieces, y, x, (strip,))
        as_read, by_style = self._written(pieces), self._written(_by_style(pieces, self._pen))
        text, self._pen = min(as_read, by_style, key=lambda written: len(written[0]))
        return text

    def _line(self, pieces: list[_Piece], y: int, x: int, strips: Iterable[Strip]) -> None:
        if y >= len(self._lines):
            return
        shown = self._lines[y]
        cells: list[Cell] = []
        for strip in strips:
            for text, style, control in strip:
                if not control:
                    _put(cells, text, _PLAIN if style is None else _pen(style, self._color_system))
        del cells[max(0, self._width - x) :]
        old_cells = shown[x : x + len(cells)]
        if old_cells == cells:
            return
        piece = None
        for index, cell in enumerate(cells):
            if cell == old_cells[index]:
                continue
            start = index
            while start > 0 and not cells[start][0]:
                start -= 1  # never begin in the middle of a wide character
            if piece is not None and start < piece.end - x:
                continue  # its left half has been taken
            if piece is not None and piece.sure and (bridge := _bridge(piece, cells, piece.end - x, start)):
                piece.chars += bridge[0]
                piece.end, piece.pen = x + start, bridge[1]
            char, pen = cells[start]
            both = _both(piece.pen, pen) if piece is not None and piece.sure and piece.end == x + start else None
            if piece is None or both is None:
                piece = _Piece(y, x + start, pen, [], x + start)
                pieces.append(piece)
            else:
                piece.pen = both
            piece.chars.append(char)
            piece.end += 2 if start + 1 < len(cells) and not cells[start + 1][0] else 1
            piece.sure = len(char) == 1 and char < "\U0001f000"
        shown[x : x + len(cells)] = cells

    def _written(self, pieces: Iterable[_Piece]) -> tuple[str, Pen | None]:
        """Escape sequences for the pieces in this order, and the pen they leave."""
        parts: list[str] = []
        pen, cursor = self._pen, None
        for piece in pieces:
            if cursor != (piece.x, piece.y):
                ahead = piece.x - cursor[0] if cursor is not None and cursor[1] == piece.y else 0
                if ahead > 0:
                    parts.append(f"\x1b[{ahead}C" if ahead > 1 else "\x1b[C")
                else:
                    parts.append(f"\x1b[{piece.y + 1};{piece.x + 1}H")
            target = piece.pen
            if target[1] == _ANY:
                target = pen if pen is not None and _both(pen, target) else ("", "", target[2])
            if target != pen:
                parts.append(_turn(pen, target))
                pen = target
            parts += piece.chars
            # Beyond the last column the cursor waits on it.
            cursor = (piece.end, piece.y) if piece.sure and piece.end < self._width else None
        return "".join(parts), pen


def _by_style(pieces: list[_Piece], pen: Pen | None) -> list[_Piece]:
    """The pieces sorted by style, those in the style that is set first; blanks go along with what suits them."""
    pens = sorted({piece.pen for piece in pieces}, key=lambda style: (style[2], style[0], style[1]))
    ranks: dict[Pen, int] = {}
    for rank, style in enumerate(pens):
        if style == pen or (style[1] == _ANY and pen is not None and _both(pen, style)):
            ranks[style] = -1
        elif style[1] != _ANY:
            ranks[style] = rank
    for rank, style in enumerate(pens):
        suits = (ranks[other] for other in pens if other[1] != _ANY and _both(other, style))
        ranks.setdefault(style, next(suits, rank))
    return sorted(pieces, key=lambda piece: ranks[piece.pen])  # stable: rows stay in order within a style


def _bridge(piece: _Piece, cells: list[Cell], first: int, last: int) -> tuple[list[str], Pen] | None:
    """The cells from a piece to the next changed one, and the pen for all, if sending them is cheaper than a jump."""
    pen, size = piece.pen, 0
    chars: list[str] = []
    if last - first > _BRIDGE_BYTES:
        return None
    for char, cell_pen in cells[first:last]:
        both = _both(pen, cell_pen)
        size += len(char.encode("utf-8", "replace"))
        if both is None or size > _BRIDGE_BYTES or len(char) != 1 or char >= "\U0001f000":
            return None
        pen = both
        chars.append(char)
    return (chars, pen) if chars and _both(pen, cells[last][1]) else None


def _both(pen: Pen, other: Pen) -> Pen | None:
    """The pen that writes what either is for; None if there is none."""
    if pen == other:
        return pen
    if pen[2] != other[2]:
        return None
    if other[1] == _ANY and not _seen_on_blanks(pen[0]):
        return pen
    return other if pen[1] == _ANY and not _seen_on_blanks(other[0]) else None


def _seen_on_blanks(attributes: str) -> bool:
    return "4" in attributes or "7" in attributes  # underlined, reversed


def _put(cells: list[Cell], text: str, pen: Pen) -> None:
    blank = (" ", pen if _seen_on_blanks(pen[0]) else ("", _ANY, pen[2]))
    if text.isascii():
        cells += [(char, pen) if char != " " else blank for char in text]
        return
    for char in text:
        size = get_character_cell_size(char)
        if size == 0:
            if cells and char.isprintable():  # a mark on the letter before; nothing that a terminal would obey
                at = len(cells) - 1
                while at and not cells[at][0]:
                    at -= 1
                cells[at] = (cells[at][0] + char, cells[at][1])
        else:
            cells.append((char, pen) if char != " " else blank)
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


_OFF = {"1": "22", "2": "22", "3": "23", "4": "24", "7": "27"}
"""What takes an attribute away; 22 takes both bold and dim."""


@lru_cache(maxsize=4096)
def _turn(old: Pen | None, new: Pen) -> str:
    """From one style to another."""
    if new == _PLAIN:
        return "\x1b[m"
    if old is None:
        codes = ["0", *new]
    else:
        had, has = set(old[0].split(";")) - {""}, set(new[0].split(";")) - {""}
        off = sorted({_OFF[code] for code in had - has})
        if "22" in off:
            had -= {"1", "2"}
        codes = [*off, *sorted(has - had)]
        codes.append("" if new[1] == old[1] else new[1] or "39")
        codes.append("" if new[2] == old[2] else new[2] or "49")
    return f"\x1b[{';'.join(filter(None, codes))}m"
