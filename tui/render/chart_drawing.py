"""A whole chart from curves: axes, canvas, letters at the lines' ends.

Everything here is pure, and made outside the event loop. A picture is rows of spans, a span a text with a role; what
a role looks like is the theme's business.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from engine.base.messages import msg
from tui.render import axes
from tui.render.axes import Scale
from tui.render.braille import Canvas, Mark, shown, smoothed

UNITS = ("step", "tokens", "time")
SMOOTHINGS = (0.0, 0.6, 0.9, 0.98)
"""What one key goes through: none, TensorBoard's default, and two stronger."""
_LETTER_MARGIN = 2
_SHORTEST_NAME = 4
_LABEL_WIDTH = 6
_WIDE = 30
"""From this width on there is room for labels at the y axis."""
_LEAST_WIDTH, _LEAST_HEIGHT = 16, 5
"""Below this there are no axes: only the curve."""


class Span(NamedTuple):
    """Text and the role it plays."""

    text: str
    role: str
    """See `theme.ROLES`."""


Row = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve as it is drawn: its marks, colour and legend."""

    name: str
    marks: tuple[Mark, ...]
    """In rising order of x; already without what the view does not show."""
    series: int = 0
    """Which colour and dash."""
    letter: str = ""
    dots: bool = False
    """Few points, each of which counts, such as evaluations."""
    last: float | None = None
    last_step: int = 0
    smooth: tuple[float | None, ...] = ()
    """The smoothed means, one a mark; empty where nothing is smoothed."""


@dataclass(frozen=True, slots=True)
class View:
    """How charts are looked at: set by keys, shared by all charts of a screen."""

    x: str = "step"
    log: bool = False
    smoothing: float = 0.0
    zoom: tuple[float, float] | None = None
    """The part of the x axis that is shown, in its unit."""
    cursor: float | None = None
    """Where values are read out, in the unit of the x axis."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn chart: `height` rows of exactly `width` cells."""

    width: int
    height: int
    rows: tuple[Row, ...]
    left: int = 0
    """First cell of the canvas, right of the axis."""
    columns: int = 0
    """Cells the canvas is wide."""
    canvas_height: int = 0
    x: Scale = Scale(0.0, 1.0)
    whole: Scale = Scale(0.0, 1.0)
    """The x axis without zoom."""
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What is not drawn, such as values that a logarithmic axis cannot show."""

    def cursor_column(self, x: float) -> int | None:
        """The cell of the picture above which a value of the x axis lies."""
        if not self.columns or not self.x.low <= x <= self.x.high:
            return None
        return self.left + round(self.x.share(x) * (self.columns * 2 - 1)) // 2


def smooth(marks: Sequence[Mark], weight: float) -> tuple[float | None, ...]:
    """The smoothed means of a curve's marks, as TensorBoard smooths the points that it shows."""
    return tuple(smoothed((mark.mean for mark in marks), weight)) if weight > 0 else ()


def frame(width: int, height: int, lettered: bool) -> tuple[int, int, int]:
    """First cell of the canvas, its width and its height. All the same whatever the data, so that nothing jumps."""
    if width < _LEAST_WIDTH or height < _LEAST_HEIGHT:
        return 0, max(width, 0), max(height, 0)
    left = _LABEL_WIDTH + 2 if width >= _WIDE else 1
    return left, width - left - (_LETTER_MARGIN if lettered else 0), height - 2


def plot(
    curves: Sequence[Curve],
    width: int,
    height: int,
    view: View,
    x: Scale | None = None,
    ascii_only: bool = False,
    faint: bool = True,
    empty: str = "nothing logged yet",
) -> Picture:
    """The picture of the curves. `x` is the x axis; None: around the marks. Without `faint`, a smoothed curve's raw
    values are left out, for terminals that have no second brightness."""
    if width <= 0 or height <= 0:
        return Picture(max(width, 0), max(height, 0), ((),) * max(height, 0))
    lettered = any(curve.letter for curve in curves)
    left, columns, canvas_height = frame(width, height, lettered)
    bare, margin = not left, width - left - columns
    x = x or _x_around(curves)
    # Raw values that are not drawn take no room.
    drawn = curves if faint else [_smooth_only(curve) for curve in curves]
    y, hidden, beyond = _y_around(drawn, x, view.log, max(2, canvas_height // 3))
    if y is None:
        note = "nothing above 0 to show on a logarithmic axis" if hidden else empty
        return _empty(width, x, view, note, left, canvas_height, ascii_only)
    y_values = axes.ticks(y, max(2, canvas_height // 3))
    y_labels = axes.labels(y_values)
    canvas = Canvas(columns, canvas_height)
    ordered = sorted(curves, key=lambda curve: curve.series)
    for curve in ordered:
        _draw(canvas, curve, x, y, faint)
    room = max(left - 2, 0)
    labelled = {
        canvas.row(y, value) // 4: text for value, text in zip(y_values, y_labels, strict=True) if len(text) <= room
    }
    letters = _letters(canvas, ordered, x, y, margin)
    above, below = ("^", "v") if ascii_only else ("▲", "▼")
    letters = _clipped(canvas, [curve for curve in drawn if curve.marks], x, y, (above, below)) | letters
    bar, corner, dash = ("|", "+", "-") if ascii_only else ("│", "└", "─")
    rows: list[Row] = []
    for index in range(canvas_height):
        cells: list[tuple[str, str]] = [
            (" ", "text") if cell is None else (cell[0], f"{'faint' if cell[2] else 'series'}{cell[1]}")
            for cell in canvas.cells(index, ascii_only)
        ]
        cells += [(" ", "text")] * margin
        for (row, column), (letter, series) in letters.items():
            if row == index:
                cells[column] = (letter, f"series{series}")
        label = f"{labelled.get(index, ''):>{room}} " if left > 1 else ""
        head = (Span(label, "dim"), Span(bar, "frame")) if left else ()
        rows.append(_joined(head, cells))
    if not bare:
        rows.append(_x_axis(curves, x, left, columns, margin, corner, dash, ascii_only))
        rows.append(_x_labels(x, view.x, left, columns, width))
    notes: tuple[str, ...] = (msg("{hidden} at or below 0 not shown", hidden=hidden),) if hidden else ()
    low, high = map(axes.value_text, beyond)
    notes += (msg("{above} up to {beyond}", above=above, beyond=high),) if beyond[1] > y.high else ()
    notes += (msg("{below} down to {beyond}", below=below, beyond=low),) if beyond[0] < y.low else ()
    return Picture(width, height, tuple(rows), left, columns, canvas_height, x, x, tuple(curves), notes)


def _smooth_only(curve: Curve) -> Curve:
    """The curve without its raw values, if it is smoothed."""
    if curve.dots or not curve.smooth:
        return curve
    marks = [
        mark._replace(low=value, high=value, mean=value) for mark, value in zip(curve.marks, curve.smooth, strict=True)
    ]
    return replace(curve, marks=tuple(marks))


def _draw(canvas: Canvas, curve: Curve, x: Scale, y: Scale, faint: bool) -> None:
    if curve.dots:
        canvas.line(curve.marks, x, y, curve.series, dots=True)
    elif curve.smooth:
        canvas.line(_smooth_only(curve).marks, x, y, curve.series)
        if faint:
            canvas.spread(curve.marks, x, y, curve.series, faint=True)
    else:
        canvas.spread(curve.marks, x, y, curve.series)


def _x_around(curves: Sequence[Curve]) -> Scale:
    xs = [mark.x for curve in curves for mark in curve.marks if math.isfinite(mark.x)]
    if not xs:
        return Scale(0.0, 1.0)
    low, high = min(xs), max(xs)
    return Scale(low, high if high > low else low + 1)


def _y_around(
    curves: Sequence[Curve], x: Scale, log: bool, count: int
) -> tuple[Scale | None, int, tuple[float, float]]:
    """The scale of what lies in the window (None: nothing does), how many marks a log axis cannot show, and the least
    and the greatest value, which may lie beyond the scale: see `axes.body`."""
    lows, highs, hidden = [], [], 0
    for curve in curves:
        for mark in curve.marks:
            if not x.low <= mark.x <= x.high:
                continue
            extent = shown(mark, log)
            if extent is None:
                hidden += log and not mark.gap
                continue
            hidden += extent[0] == 0.0 and log
            if extent[0] > 0 or not log:
                lows.append(extent[0])
            else:
                lows.append(extent[2] if extent[2] > 0 else extent[1])
            highs.append(extent[1])
    if not highs:
        return None, hidden, (math.inf, -math.inf)
    whole = min(lows), max(highs)
    return axes.y_scale(*axes.body(lows, highs, log), log, count), hidden, whole


def _clipped(
    canvas: Canvas, curves: Sequence[Curve], x: Scale, y: Scale, signs: tuple[str, str]
) -> dict[tuple[int, int], tuple[str, int]]:
    """Where a curve goes on beyond the chart's upper or lower edge."""
    arrows: dict[tuple[int, int], tuple[str, int]] = {}
    for curve in curves:
        for mark in curve.marks:
            values = shown(mark, y.log) if x.low <= mark.x <= x.high else None
            if values is None:
                continue
            column = canvas.column(x, mark.x) // 2
            if values[1] > y.high:
                arrows.setdefault((0, column), (signs[0], curve.series))
            if values[0] < y.low and (values[0] > 0 or not y.log):
                arrows.setdefault((canvas.height - 1, column), (signs[1], curve.series))
    return arrows


def _letters(
    canvas: Canvas, curves: Sequence[Curve], x: Scale, y: Scale, margin: int
) -> dict[tuple[int, int], tuple[str, int]]:
    """Where each line's letter stands: right of its end, one row off where two lines end at the same place."""
    letters: dict[tuple[int, int], tuple[str, int]] = {}
    for curve in curves:
        values = curve.smooth or tuple(mark.mean for mark in curve.marks)
        ends = [
            (mark, value)
            for mark, value in zip(curve.marks, values, strict=True)
            if value is not None and x.low <= mark.x <= x.high and shown(mark._replace(mean=value), y.log) is not None
        ]
        if not curve.letter or not ends:
            continue
        mark, value = ends[-1]
        column = min(canvas.column(x, mark.x) // 2 + 1, canvas.width + margin - 1)
        row = canvas.row(y, value) // 4
        for other in sorted(range(canvas.height), key=lambda near: (abs(near - row), near)):
            if (other, column) not in letters:
                letters[other, column] = (curve.letter, curve.series)
                break
    return letters


def _x_axis(
    curves: Sequence[Curve], x: Scale, left: int, columns: int, margin: int, corner: str, dash: str, ascii_only: bool
) -> Row:
    """The line under the canvas; a cross where a value was NaN or infinite."""
    cells = [(dash, "frame")] * columns
    for curve in sorted(curves, key=lambda curve: -curve.series):
        for mark in curve.marks:
            if mark.nonfinite and math.isfinite(mark.x) and x.low <= mark.x <= x.high:
                column = round(x.share(mark.x) * (columns * 2 - 1)) // 2
                cells[column] = ("x" if ascii_only else "×", f"series{curve.series}")
    return _joined((Span(" " * (left - 1), "text"), Span(corner, "frame")), cells + [(dash, "frame")] * margin)


def _x_labels(x: Scale, unit: str, left: int, columns: int, width: int) -> Row:
    values = axes.x_ticks(x, max(2, columns // 16), unit)
    line = [" "] * width
    free = 0
    for value, text in zip(values, axes.x_labels(values, unit), strict=True):
        at = left + round(x.share(value) * (columns - 1)) - (len(text) // 2 if value > x.low else 0)
        at = min(at, width - len(text))
        if at < free or at < 0:
            continue
        line[at : at + len(text)] = text
        free = at + len(text) + 2
    return (Span("".join(line), "dim"),)


def _empty(width: int, x: Scale, view: View, note: str, left: int, canvas_height: int, ascii_only: bool) -> Picture:
    """Axes without a curve, and why."""
    bar, corner, dash = ("|", "+", "-") if ascii_only else ("│", "└", "─")
    columns = width - left
    rows: list[Row] = []
    for index in range(canvas_height):
        text = f" {note}"[:columns] if index == canvas_height // 2 else ""
        axis = (Span(" " * (left - 1), "text"), Span(bar, "frame")) if left else ()
        rows.append((*axis, Span(f"{text:<{columns}}", "dim" if text else "text")))
    if left:
        rows.append((Span(" " * (left - 1), "text"), Span(corner + dash * columns, "frame")))
        rows.append(_x_labels(x, view.x, left, columns, width))
    return Picture(width, len(rows), tuple(rows), left, columns, canvas_height, x, x)


def _joined(head: Row, cells: Sequence[tuple[str, str]]) -> Row:
    """Neighbouring cells of one role made one span."""
    spans = [span for span in head if span.text]
    text, role = "", ""
    for char, cell_role in cells:
        # A blank cell costs nothing in any colour: it does not end a span.
        if text and cell_role != role and char != " ":
            spans.append(Span(text, role))
            text = ""
        if not text or char != " ":
            role = cell_role
        text += char
    if text:
        spans.append(Span(text, role))
    return tuple(spans)
