"""Curves to dots, and dots to cells: a braille character has 2 by 4 of them.

A canvas holds, for every curve drawn on it, one whole number per dot column whose bits are the dots of that column, top
first. That makes filling a column one operation, and the same canvas is read as braille or as ASCII.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tui.render.axes import Scale

DASHES = ((1,), (1, 1, 1, 0, 0), (1, 0, 0), (1, 1, 1, 1, 1, 0, 0, 1, 0, 0))
"""Solid, dashed, dotted, dash and dot: the series A to D, told apart without colour. In dots along the line."""
_ASCII = "#o+x"
_ASCII_FAINT = "."


def _cell_table() -> list[str]:
    """Braille by 4 bits of the left dot column, 4 of the right, each top first; index left | right << 4."""
    left, right = (0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)
    table = []
    for index in range(256):
        dots = sum(left[row] for row in range(4) if index >> row & 1)
        dots += sum(right[row] for row in range(4) if index >> (row + 4) & 1)
        table.append(chr(0x2800 + dots))
    return table


_BRAILLE = _cell_table()


class Mark(NamedTuple):
    """One place of a curve: a point, or all points that fall into one column."""

    x: float
    low: float | None
    high: float | None
    mean: float | None
    """None, or anything not finite, is a gap."""
    nonfinite: int = 0
    """How many of its points were NaN or infinite."""
    first_step: int = 0
    last_step: int = 0

    @property
    def gap(self) -> bool:
        """Whether there is nothing to draw: no finite value."""
        return self.mean is None or not math.isfinite(self.mean)


def smoothed(values: Iterable[float | None], weight: float) -> Iterator[float | None]:
    """TensorBoard's smoothing: an exponential moving average, its start corrected for the missing past.

    The correction is that of Adam (Kingma and Ba 2014, section 3): division by 1 - weight**n. Gaps stay gaps and are
    left out of the average.
    """
    average, decay = 0.0, 1.0
    for value in values:
        if value is None or not math.isfinite(value):
            yield None
            continue
        average = average * weight + (1 - weight) * value
        decay *= weight
        corrected = average / (1 - decay)
        yield corrected if math.isfinite(corrected) else value


@dataclass(slots=True)
class _Stroke:
    """What a curve does in one dot column: dot rows count from the top."""

    column: int
    top: int
    bottom: int
    middle: int
    joined: bool
    """Whether a line leads here from the stroke before."""


class Canvas:
    """Layers of dots over `width` by `height` cells."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.columns, self.rows = width * 2, height * 4
        self._layers: list[tuple[list[int], int, bool]] = []

    def column(self, x: Scale, value: float) -> int:
        """The dot column of a value on the x axis."""
        return round(x.share(value) * (self.columns - 1))

    def row(self, y: Scale, value: float) -> int:
        """The dot row of a value on the y axis, 0 at the top."""
        return round((1 - y.share(value)) * (self.rows - 1))

    def spread(self, marks: Sequence[Mark], x: Scale, y: Scale, series: int, faint: bool = False) -> None:
        """Every column's range from its lowest to its highest value, neighbours joined."""
        strokes = self._strokes(marks, x, y)
        self._layers.append((self._draw(strokes, DASHES[0] if faint else DASHES[series % len(DASHES)]), series, faint))

    def line(self, marks: Sequence[Mark], x: Scale, y: Scale, series: int, dots: bool = False) -> None:
        """A line through the means. With `dots`, each mark stands out: few points, such as evaluations."""
        flat = [mark._replace(low=mark.mean, high=mark.mean) for mark in marks]
        strokes = self._strokes(flat, x, y)
        masks = self._draw(strokes, DASHES[series % len(DASHES)])
        if dots:
            for stroke in strokes:
                for column in (stroke.column, min(stroke.column + 1, self.columns - 1)):
                    masks[column] |= 0b11 << max(min(stroke.middle, self.rows - 2), 0)
        self._layers.append((masks, series, False))

    def cells(self, row: int, ascii_only: bool) -> list[tuple[str, int, bool] | None]:
        """One row of cells: character, series that owns its colour, whether faint; None where nothing is drawn.

        A line hides what is faint behind it; where lines cross, the cell shows the dots of all and the first one's
        colour.
        """
        shift = row * 4
        row_cells: list[tuple[str, int, bool] | None] = []
        layers = [layer for layer in self._layers if not layer[2]] + [layer for layer in self._layers if layer[2]]
        for left in range(0, self.columns, 2):
            bits, owner, owner_faint = 0, -1, False
            for masks, series, faint in layers:
                if faint and bits:
                    break
                here = (masks[left] >> shift & 15) | (masks[left + 1] >> shift & 15) << 4
                if here:
                    bits |= here
                    if owner < 0:
                        owner, owner_faint = series, faint
            if not bits:
                row_cells.append(None)
            elif ascii_only:
                row_cells.append((_ASCII_FAINT if owner_faint else _ASCII[owner % len(_ASCII)], owner, owner_faint))
            else:
                row_cells.append((_BRAILLE[bits], owner, owner_faint))
        return row_cells

    def _strokes(self, marks: Sequence[Mark], x: Scale, y: Scale) -> list[_Stroke]:
        """Marks of one dot column merged. Values at or below 0 on a logarithmic scale are gaps, or reach the edge."""
        strokes: list[_Stroke] = []
        broken = True
        for mark in marks:
            if not math.isfinite(mark.x) or not x.low <= mark.x <= x.high:
                continue
            extent = shown(mark, y.log)
            if extent is None:
                broken = True
                continue
            low, high, mean = extent
            column = self.column(x, mark.x)
            top, bottom = self.row(y, high), self.row(y, low)
            middle = min(max(self.row(y, mean), top), bottom)
            last = strokes[-1] if strokes else None
            if last is not None and last.column == column:
                last.top, last.bottom, last.middle = min(last.top, top), max(last.bottom, bottom), middle
            else:
                strokes.append(_Stroke(column, top, bottom, middle, not broken))
            broken = False
        return strokes

    def _draw(self, strokes: Sequence[_Stroke], dash: tuple[int, ...]) -> list[int]:
        masks = [0] * self.columns
        pen = _Pen(masks, dash)
        for index, stroke in enumerate(strokes):
            top, bottom = stroke.top, stroke.bottom
            if stroke.joined:
                previous = strokes[index - 1]
                if stroke.column - previous.column > 1:
                    pen.across(previous.column, previous.middle, stroke.column, stroke.middle)
                elif top > previous.bottom + 1:  # neighbours meet halfway
                    half = (previous.bottom + top) // 2
                    pen.down(previous.column, previous.bottom + 1, half)
                    top = half + 1
                elif bottom < previous.top - 1:
                    half = (previous.top + bottom + 1) // 2
                    pen.down(previous.column, half, previous.top - 1)
                    bottom = half - 1
            pen.down(stroke.column, top, bottom)
        if strokes:  # dashes must not hide how far a curve went, nor where it starts and ends
            for stroke, row in (
                (min(strokes, key=lambda stroke: stroke.top), "top"),
                (max(strokes, key=lambda stroke: stroke.bottom), "bottom"),
                (strokes[0], "middle"),
                (strokes[-1], "middle"),
            ):
                masks[stroke.column] |= 1 << getattr(stroke, row)
        return masks


class _Pen:
    """Sets dots, leaving out those that the dash leaves out along the line."""

    def __init__(self, masks: list[int], dash: tuple[int, ...]) -> None:
        self._masks, self._dash, self._at = masks, dash, 0

    def down(self, column: int, top: int, bottom: int) -> None:
        if top > bottom:
            return
        if len(self._dash) == 1:
            self._masks[column] |= ((1 << (bottom - top + 1)) - 1) << top
            return
        for row in range(top, bottom + 1):
            self._dot(column, row)

    def across(self, column: int, row: int, to_column: int, to_row: int) -> None:
        """The dots strictly between two columns, on a straight line."""
        slope = (to_row - row) / (to_column - column)
        previous = row
        for between in range(column + 1, to_column):
            here = round(row + slope * (between - column))
            if abs(here - previous) > 1:  # a steep line has no holes
                step = 1 if here > previous else -1
                for row_between in range(previous + step, here, step):
                    self._dot(between, row_between)
            self._dot(between, here)
            previous = here

    def _dot(self, column: int, row: int) -> None:
        if self._dash[self._at % len(self._dash)]:
            self._masks[column] |= 1 << row
        self._at += 1


def shown(mark: Mark, log: bool) -> tuple[float, float, float] | None:
    """Low, high and mean of a mark as they can be drawn; None for a gap."""
    values = [value for value in (mark.low, mark.high, mark.mean) if value is not None and math.isfinite(value)]
    if log:
        values = [value for value in values if value > 0]
    if not values or mark.gap:
        return None
    low, high = min(values), max(values)
    if log and mark.low is not None and mark.low <= 0:
        low = 0.0  # the bottom edge
    mean = low if mark.mean is None else mark.mean
    return low, high, min(max(mean, low), high)


def swatch(series: int, width: int = 2, ascii_only: bool = False) -> str:
    """A piece of the series' line, for the legend."""
    if ascii_only:
        return _ASCII[series % len(_ASCII)] * width
    canvas = Canvas(width, 1)
    flat = Scale(0.0, 1.0)
    canvas.line([Mark(0, 0.5, 0.5, 0.5), Mark(1, 0.5, 0.5, 0.5)], flat, flat, series)
    return "".join(cell[0] if cell else " " for cell in canvas.cells(0, False))
