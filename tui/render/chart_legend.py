"""What stands over a chart and moves over it: legend, the read-out at the cursor, steps of cursor and zoom. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.present.text import cells, cut
from tui.render import axes
from tui.render.axes import Scale, value_text
from tui.render.braille import Mark, swatch
from tui.render.chart_drawing import Curve, Row, Span, View
from tui.render.line import line_cells

_SHORTEST_NAME = 4


@dataclass(frozen=True, slots=True)
class Reading:
    """What a curve says at the cursor."""

    curve: Curve
    mark: Mark
    smooth: float | None


def readings(curves: Sequence[Curve], x: float) -> tuple[Reading, ...]:
    """What each curve that has a value near `x` says there: its nearest mark."""
    nearest = []
    for curve in curves:
        near = min(
            (index for index, mark in enumerate(curve.marks) if math.isfinite(mark.x)),
            key=lambda index: abs(curve.marks[index].x - x),
            default=None,
        )
        if near is not None:
            nearest.append(Reading(curve, curve.marks[near], curve.smooth[near] if curve.smooth else None))
    return tuple(nearest)


def neighbour(curves: Sequence[Curve], x: float | None, by: int, scale: Scale) -> float | None:
    """The mark_x `by` marks further than `x` on any of the curves: where the cursor goes. None without marks."""
    marks_x = sorted({mark.x for curve in curves for mark in curve.marks if scale.low <= mark.x <= scale.high})
    if not marks_x:
        return None
    if x is None:
        return marks_x[-1] if by <= 0 else marks_x[0]
    if by > 0:
        beyond = [mark_x for mark_x in marks_x if mark_x > x]
        return beyond[min(by, len(beyond)) - 1] if beyond else marks_x[-1]
    beyond = [mark_x for mark_x in marks_x if mark_x < x]
    return beyond[max(by, -len(beyond))] if beyond else marks_x[0]


def zoomed(
    view_zoom: tuple[float, float] | None, whole: Scale, factor: float, centre: float | None
) -> tuple[float, float] | None:
    """The window made narrower (`factor` below 1) or wider around the centre. None: all of the axis."""
    low, high = view_zoom or (whole.low, whole.high)
    middle = (low + high) / 2 if centre is None else min(max(centre, low), high)
    span = (high - low) * factor
    full = whole.high - whole.low
    if span >= full:
        return None
    span = max(span, full * 1e-6)
    low = min(max(middle - span * (middle - low) / (high - low), whole.low), whole.high - span)
    return low, low + span


def legend(curves: Sequence[Curve], view: View, x: Scale, ascii_only: bool = False, width: int | None = None) -> Row:
    """Each curve with a piece of its line and its value: the last one, or the one at the cursor.

    In a `width` that is too narrow for all of it, names are cut short first.
    """
    whole = _legend(curves, view, x, ascii_only)
    beyond = 0 if width is None else line_cells(whole) - width
    named = [curve for curve in curves if curve.letter]
    if beyond <= 0 or not named:
        return whole
    room = max(_SHORTEST_NAME, (sum(cells(curve.name) for curve in named) - beyond) // len(named))
    return _legend([replace(curve, name=cut(curve.name, room)) for curve in curves], view, x, ascii_only)


def _legend(curves: Sequence[Curve], view: View, x: Scale, ascii_only: bool) -> Row:
    spans: list[Span] = []
    at = {id(reading.curve): reading for reading in readings(curves, view.cursor)} if view.cursor is not None else {}
    if view.cursor is not None:
        spans.append(Span(f"{view.x} {_place(view.cursor, view.x)}", "title"))
    for curve in curves:
        if spans:
            spans.append(Span("   ", "text"))
        name = f"{curve.letter} {curve.name}".strip()
        spans += [Span(f"{name} ", "dim"), Span(f"{swatch(curve.series, 4, ascii_only)} ", f"series{curve.series}")]
        reading = at.get(id(curve))
        if reading is None:
            spans.append(Span(value_text(curve.last), "text"))
            if curve.dots and curve.last is not None:
                spans.append(Span(f" at {axes.labels([float(curve.last_step)])[0]}", "dim"))
            continue
        mark = reading.mark
        spans.append(Span(value_text(mark.mean if reading.smooth is None else reading.smooth), "text"))
        if mark.low is not None and mark.high is not None and mark.low != mark.high:
            spans.append(Span(f" ({value_text(mark.low)}–{value_text(mark.high)})", "dim"))
    if view.smoothing:
        spans.append(Span(f"   smooth {view.smoothing:g}", "dim"))
    if view.log:
        spans.append(Span("   log", "dim"))
    if view.zoom is not None:
        low, high = (_place(edge, view.x) for edge in (x.low, x.high))
        spans.append(Span(f"   {low}–{high}", "dim"))
    return tuple(spans)


def _place(x: float, unit: str) -> str:
    if unit == "time":
        return axes.time_label(x)
    return value_text(x) if x >= 1e6 else f"{x:,.0f}"
