"""The curves of a comparison as a picture: SVG by hand, since a drawing library is much to carry for lines and ticks.

One panel for each metric. A line goes through the means of the columns, with the range of its points behind it; each
subject has its own colour (Okabe and Ito's, told apart by the colour-blind), its own dashes, and its letter at the end.
"""

import math
from collections.abc import Sequence
from html import escape

from engine.compare.comparison_records import Comparison
from engine.compare.finite_columns import FiniteColumn, finite_column, finite_columns
from engine.store.run_records import Chart

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000")
_DASHES = ("", "6 3", "2 2", "8 3 2 3", "", "6 3", "2 2", "8 3 2 3")
_WIDTH, _PANEL, _LEFT, _RIGHT, _TOP, _GAP = 800, 260, 64, 40, 18, 54
_LEGEND_LINE = 18
_X_TITLES = {"step": "step", "tokens": "tokens", "time": "seconds"}


def svg(comparison: Comparison) -> str:
    """The picture as a whole SVG document."""
    panels = {key: charts for key, charts in comparison.curves.items() if any(charts)}
    legend = _TOP + _LEGEND_LINE * len(comparison.subjects)
    height = legend + max(1, len(panels)) * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for index, subject in enumerate(comparison.subjects):
        y = _TOP + index * _LEGEND_LINE
        parts.append(f'<line x1="{_LEFT}" y1="{y - 4}" x2="{_LEFT + 30}" y2="{y - 4}" {_stroke(index)}/>')
        state = f" ({subject.state.value})" if subject.state else ""
        parts.append(_text(_LEFT + 38, y, f"{subject.letter}  {subject.asked}  {subject.title}{state}"))
    for number, (key, charts) in enumerate(panels.items()):
        parts += _panel(key, charts, comparison, legend + number * (_PANEL + _GAP))
    if not panels:
        parts.append(_text(_LEFT, legend + 20, "nothing has been logged yet"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def png(comparison: Comparison) -> bytes:
    """The same curves drawn by matplotlib. Raises ImportError where it is not installed."""
    import io

    from matplotlib.figure import Figure  # not a dependency: 40 MB, for a file format that SVG replaces

    panels = {key: charts for key, charts in comparison.curves.items() if any(charts)}
    figure = Figure(figsize=(9, 3.2 * max(1, len(panels))), layout="constrained")
    for number, (key, charts) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(len(panels), 1, number)
        for index, (subject, chart) in enumerate(zip(comparison.subjects, charts, strict=True)):
            if chart is None:
                continue
            xs = [column.x for column in chart.columns]
            style = {"color": COLOURS[index], "label": f"{subject.letter} {subject.asked}"}
            axes.plot(xs, [math.nan if c.mean is None else c.mean for c in chart.columns], **style)
        axes.set_title(key, fontsize=10)
        axes.set_xlabel(_X_TITLES.get(comparison.x, comparison.x))
        axes.legend(fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values within a range, about so many."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _panel(key: str, charts: Sequence[Chart | None], comparison: Comparison, top: float) -> list[str]:
    shown = [chart for chart in charts if chart and chart.columns]
    columns = [column for chart in shown for column in finite_columns(chart.columns)]
    low_x, high_x = min(chart.low_x for chart in shown), max(chart.high_x for chart in shown)
    # Of the range only the inner 98 %: one leap must not press the curves flat.
    extremes = sorted([column.low for column in columns] + [column.high for column in columns]) or [0.0, 1.0]
    trim = len(extremes) // 100
    low_y = min(extremes[trim], *(column.mean for column in columns)) if columns else 0.0
    high_y = max(extremes[-1 - trim], *(column.mean for column in columns)) if columns else 1.0
    margin = (high_y - low_y) * 0.05 or abs(high_y) * 0.05 or 0.5
    low_y, high_y = low_y - margin, high_y + margin
    right, bottom = _WIDTH - _RIGHT, top + _PANEL

    def x_of(x: float) -> float:
        # A column's middle may lie half a column beyond the last step.
        return min(max(_LEFT + (right - _LEFT) * (x - low_x) / ((high_x - low_x) or 1.0), _LEFT), right)

    def y_of(y: float) -> float:
        return min(max(bottom - _PANEL * (y - low_y) / (high_y - low_y), top), bottom)

    parts = [_text(_LEFT, top - 6, key, weight="bold")]
    for value in ticks(low_y, high_y):
        y = y_of(value)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{value:.4g}", anchor="end"))
    for value in ticks(low_x, high_x):
        parts.append(_text(x_of(value), bottom + 16, f"{value:,.6g}", anchor="middle"))
    parts.append(_text((_LEFT + right) / 2, bottom + 32, _X_TITLES.get(comparison.x, comparison.x), anchor="middle"))
    parts.append(
        f'<rect x="{_LEFT}" y="{top}" width="{right - _LEFT}" height="{_PANEL}" fill="none" stroke="#888888"/>'
    )
    for index, chart in enumerate(charts):
        if chart is None:
            continue
        for piece in _pieces(chart):
            upper = [(x_of(column.x), y_of(column.high)) for column in piece]
            lower = [(x_of(column.x), y_of(column.low)) for column in reversed(piece)]
            if len(piece) > 1 and any(column.high > column.low for column in piece):
                parts.append(f'<polygon points="{_points(upper + lower)}" fill="{COLOURS[index]}" opacity="0.12"/>')
            middle = [(x_of(column.x), y_of(column.mean)) for column in piece]
            parts.append(f'<polyline points="{_points(middle)}" fill="none" {_stroke(index)}/>')
            if len(piece) <= 40:
                parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{COLOURS[index]}"/>' for x, y in middle]
        if last := finite_columns(chart.columns)[-1:]:
            x, y = x_of(last[0].x) + 5, y_of(last[0].mean) + 4
            parts.append(_text(x, y, comparison.subjects[index].letter, fill=COLOURS[index], weight="bold"))
    return parts


def _pieces(chart: Chart) -> list[list[FiniteColumn]]:
    """The columns between gaps: a column of nothing but NaN ends a line."""
    pieces: list[list[FiniteColumn]] = [[]]
    for column in chart.columns:
        finite = finite_column(column)
        if finite is None:
            pieces.append([])
        else:
            pieces[-1].append(finite)
    return [piece for piece in pieces if piece]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _stroke(index: int) -> str:
    dashes = f' stroke-dasharray="{_DASHES[index]}"' if _DASHES[index] else ""
    return f'stroke="{COLOURS[index]}" stroke-width="1.8"{dashes}'


def _text(x: float, y: float, text: str, anchor: str = "start", fill: str = "#222222", weight: str = "normal") -> str:
    shown = escape("".join(char if char.isprintable() else "�" for char in text))
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}" '
        f'xml:space="preserve">{shown}</text>'
    )
