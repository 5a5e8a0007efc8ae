"""Curves of the compared runs over one range of the x axis."""

from collections.abc import Sequence

from engine.compare.result_tables import tokens_at
from engine.compare.subjects import ResolvedRun, ResolvedSubject
from engine.store import chart_queries, progress_queries
from engine.store.run_records import Chart


def aligned_curves(compared: Sequence[ResolvedSubject], key: str, x: str, columns: int) -> tuple[Chart | None, ...]:
    """One chart for each subject over the range of the longest; a checkpoint's ends where it stands."""
    logged = [run for run in compared if isinstance(run, ResolvedRun) and key in run.series]
    high = max((end for run in logged if (end := _end(run, x)) is not None), default=None)
    if high is None:
        return (None,) * len(compared)
    return tuple(_curve(resolved, key, x, columns, high) for resolved in compared)


def _end(run: ResolvedRun, x: str) -> float | None:
    step = run.subject.last_step
    if step is None or x == "step":
        return step
    if x == "tokens":
        return tokens_at(run, step)
    first = run.series["train/loss"].first_step
    begin, end = (progress_queries.moment_at(run.conn, run.run.id, at) for at in (first, step))
    return end - begin if begin is not None and end is not None else None


def _curve(run: ResolvedSubject, key: str, x: str, columns: int, high: float) -> Chart | None:
    if not isinstance(run, ResolvedRun) or key not in run.series:
        return None
    chart = chart_queries.chart(run.conn, run.run.id, key, columns, x, low=0, high=high)
    until = run.subject.last_step
    if chart is None or run.subject.is_run or until is None:
        return chart
    kept = tuple(column for column in chart.columns if column.first_step <= until)
    return Chart(chart.run_id, chart.key, chart.x, chart.low_x, chart.high_x, kept)
