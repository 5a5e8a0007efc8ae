"""Which curves a chart shows, and their marks read from the store: as many as the chart has dot columns.

Runs on a reading thread, never on the event loop. The x axis ends at a round number beyond the data, or where the run
will end once it is near enough: so a live chart's old columns stay where they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engine.base.messages import msg
from engine.present.text import one_line
from engine.store import chart_queries, queries
from engine.store.connect import Connection, snapshot
from engine.store.run_records import Chart, Run, Series
from engine.store.series import TIME_KEY
from tui.render import axes
from tui.render.axes import Scale
from tui.render.braille import Mark
from tui.render.chart_drawing import Curve, Picture, View, frame, plot, smooth

_FEW = 40
"""A series with fewer points than this, and far fewer than its run has steps, is drawn point by point."""
_NEAR_END = 0.4
"""A live run that has done this share of its steps is drawn against all of them."""
_SMOOTHING_PAST = 0.2
"""Share of the window that is read before its beginning, so that a smoothed line does not start afresh at the edge."""

LOSS = ("train/loss", "eval/loss")
_TITLES = {
    "train/loss": "train",
    "eval/loss": "eval",
    "train/lr": "learning rate",
    "train/grad_norm": "gradient norm",
    "train/tokens_per_s": "tokens/s",
    "train/tokens": "tokens",
    "train/step_s": "seconds a step",
    "gpu/memory": "GPU memory, GiB",
    "gpu/util": "GPU use, %",
    "gpu/power": "GPU power, W",
    "host/cpu": "CPU, % of a core",
    "host/rss": "memory of its processes, GiB",
}
_UNITS = {"gpu/memory": float(1 << 30), "host/rss": float(1 << 30)}
"""What is logged in bytes is drawn in GiB, as nvidia-smi and the list of GPUs count."""


@dataclass(frozen=True, slots=True)
class CurveSpec:
    """One curve of a chart."""

    run_id: int
    key: str
    series: int = 0
    letter: str = ""
    name: str = ""
    """In the legend; the metric's title when empty."""
    until: int | None = None
    """The last step that is shown: where a checkpoint stands."""


@dataclass(frozen=True, slots=True)
class Request:
    """A chart of a certain size."""

    curves: tuple[CurveSpec, ...]
    view: View
    width: int
    height: int
    ascii_only: bool = False
    faint: bool = True


def title(key: str) -> str:
    """What people call a metric."""
    metric, at, source = key.partition("@")
    return one_line(_TITLES.get(metric, metric.removeprefix("train/")) + at + source)


def metrics(keys: Iterable[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What the key for the metric goes through: losses on one chart, then each other metric."""
    keys = set(keys)
    order = ("train/lr", "train/grad_norm", "train/tokens_per_s", "train/step_s")
    single = [key for key in order if key in keys]
    single += sorted(key for key in keys if key not in LOSS and key not in order and key not in ("train/tokens",))
    return (("loss", LOSS), *((title(key), (key,)) for key in single))


def draw(conn: Connection, request: Request) -> Picture:
    """Read and plot a chart."""
    view, lettered = request.view, any(curve.letter for curve in request.curves)
    _, cells, _ = frame(request.width, request.height, lettered)
    columns = max(cells * 2, 2)
    with snapshot(conn):
        runs = {spec.run_id: queries.run(conn, spec.run_id) for spec in request.curves}
        summaries = {spec: _summary(conn, spec.run_id, spec.key) for spec in request.curves}
        whole = _whole_axis(conn, view.x, runs, summaries)
        x = Scale(*view.zoom) if view.zoom else whole
        curves = [
            _curve(conn, spec, summary, view, x, columns) for spec, summary in summaries.items() if summary is not None
        ]
    empty = _why_empty(runs.values(), request.curves)
    # The raw values of three curves and more only hide the lines.
    faint = request.faint and len(request.curves) <= 2
    picture = plot(curves, request.width, request.height, view, x, request.ascii_only, faint, empty)
    return replace(picture, whole=whole)


def _summary(conn: Connection, run_id: int, key: str) -> Series | None:
    return queries.series_of_many(conn, (run_id,), key).get(run_id)


def _whole_axis(
    conn: Connection, unit: str, runs: dict[int, Run | None], summaries: dict[CurveSpec, Series | None]
) -> Scale:
    """The unzoomed x axis: from 0 to a round end."""
    ends = []
    for spec, summary in summaries.items():
        if summary is None:
            continue
        if unit == "step":
            ends.append(_end_of(runs[spec.run_id], summary.last_step))
        elif unit == "time":
            times = _summary(conn, spec.run_id, TIME_KEY)
            ends.append(axes.grown(times.last - times.first) if times and times.last and times.first else 1.0)
        else:
            tokens = _summary(conn, spec.run_id, chart_queries.X_SERIES["tokens"])
            ends.append(axes.grown(tokens.last) if tokens and tokens.last else 1.0)
    return Scale(0.0, max(ends, default=1.0))


def _end_of(run: Run | None, last_step: int) -> float:
    if run is None or run.ended:
        return float(max(last_step, 1))
    if run.total_steps and last_step >= run.total_steps * _NEAR_END:
        return float(max(run.total_steps, last_step))
    return axes.grown(max(last_step, 10))


def _curve(conn: Connection, spec: CurveSpec, summary: Series, view: View, x: Scale, columns: int) -> Curve:
    past = int(columns * _SMOOTHING_PAST) if view.zoom and view.smoothing else 0
    width = (x.high - x.low + (view.x == "step")) / columns
    stored = chart_queries.chart(
        conn, spec.run_id, spec.key, columns + past, view.x, low=x.low - past * width, high=x.high
    )
    marks = marks_of(stored, x, columns) if stored else ()
    unit = _UNITS.get(spec.key, 1.0)
    if unit != 1.0:
        marks = tuple(_divided(mark, unit) for mark in marks)
    smoothed = smooth(marks, view.smoothing)
    until = spec.until if spec.until is not None else summary.last_step
    inside = [i for i, mark in enumerate(marks) if x.low <= mark.x <= x.high and mark.first_step <= until]
    few = summary.count <= _FEW and summary.count * 2 < max(summary.last_step - summary.first_step, 1)
    return Curve(
        name=one_line(spec.name) or title(spec.key),
        marks=tuple(marks[index] for index in inside),
        series=spec.series,
        letter=spec.letter,
        dots=few,
        last=None if summary.last is None else summary.last / unit,
        last_step=summary.last_step,
        smooth=() if few else tuple(smoothed[index] for index in inside) if smoothed else (),
    )


def marks_of(chart: Chart, x: Scale, columns: int) -> tuple[Mark, ...]:
    """The store's columns as marks. On an axis of steps with room for each of them, a mark lies at its very step."""
    single = chart.x == "step" and x.high - x.low + 1 < columns
    # The store's axis of steps ends at the end of its last step, ours at the step itself.
    shrink = (x.high - x.low) / (x.high - x.low + 1) if chart.x == "step" else 1.0
    return tuple(
        Mark(
            float(column.first_step) if single else x.low + (column.x - x.low) * shrink,
            column.low,
            column.high,
            column.mean,
            column.nonfinite,
            column.first_step,
            column.last_step,
        )
        for column in chart.columns
    )


def _divided(mark: Mark, by: float) -> Mark:
    low, high, mean = (None if value is None else value / by for value in (mark.low, mark.high, mark.mean))
    return mark._replace(low=low, high=high, mean=mean)


def _why_empty(runs: Iterable[Run | None], curves: Sequence[CurveSpec]) -> str:
    """What an empty chart says."""
    names = " or ".join(dict.fromkeys(title(spec.key) for spec in curves)) or "metric"
    if any(run is not None and run.active for run in runs):
        return msg("no {names} yet: the first comes with the first step", names=names)
    return msg("no {names} was logged", names=names)
