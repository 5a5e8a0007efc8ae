"""Metrics of the compared runs at points they share: at the best, at one step, after as many tokens, after as long."""

import dataclasses
from collections.abc import Sequence

from engine.base.messages import msg
from engine.base.units import duration
from engine.compare.comparison_records import ResultRow, ResultTable
from engine.compare.subjects import ResolvedRun, ResolvedSubject
from engine.metrics.names import lower_is_better
from engine.runs.evaluation_folder import EvaluationResult
from engine.store import chart_queries, progress_queries

_RECENT = 20
"""The training loss of one step is mostly noise: the mean of the last twentieth of the steps stands for it."""


def result_tables(compared: Sequence[ResolvedSubject]) -> tuple[ResultTable, ...]:
    """At best, and at the same step, tokens and time where more than one of them has trained."""
    keys = _metric_keys(compared)
    best_steps = [resolved.subject.step for resolved in compared]
    tables = [ResultTable("best", _best_title(compared), None, _rows(compared, keys, best_steps))] if keys else []
    trained = {
        index: (resolved, resolved.subject.last_step)
        for index, resolved in enumerate(compared)
        if isinstance(resolved, ResolvedRun) and resolved.subject.last_step
    }
    if len(trained) < 2:
        return tuple(tables)

    def at(step_by_index: dict[int, int | None]) -> tuple[ResultRow, ...]:
        return _rows(compared, keys, [step_by_index.get(index) for index in range(len(compared))])

    shortest = min(last_step for _, last_step in trained.values())
    step = _common_evaluation_step([run for run, _ in trained.values()], shortest) or shortest
    title = msg("at the same step, {step:,}", step=step)
    tables.append(ResultTable("step", title, step, at(dict.fromkeys(trained, step))))
    if tokens := _least([tokens_at(run, last_step) for run, last_step in trained.values()]):
        title = msg("at the same tokens, {tokens:,.0f}", tokens=tokens)
        steps = {index: _step_of_tokens(run, tokens) for index, (run, _) in trained.items()}
        tables.append(ResultTable("tokens", title, tokens, at(steps)))
    if seconds := _least([_seconds_at(run, last_step) for run, last_step in trained.values()]):
        title = msg("at the same time of work, {duration}", duration=duration(seconds))
        steps = {index: _step_of_seconds(run, seconds) for index, (run, _) in trained.items()}
        tables.append(ResultTable("time", title, seconds, at(steps)))
    return tuple(tables)


def evaluation_table(chosen: Sequence[EvaluationResult | None]) -> tuple[ResultTable, ...]:
    """Scores of evaluations that `finetop eval` made; those of training are metrics already."""
    present = [result for result in chosen if result]
    if not any(result.source == "eval" for result in present):
        return ()
    keys = sorted({key for result in present for key in result.scores}, key=lambda key: (key != "eval/loss", key))
    steps = tuple(result.step if result else None for result in chosen)
    rows = tuple(
        ResultRow(
            key, tuple(result.scores.get(key) if result else None for result in chosen), steps, lower_is_better(key)
        )
        for key in keys
    )
    title = msg("on the same {examples:,} examples", examples=present[0].examples) + (
        f" ({present[0].data})" if present[0].data else ""
    )
    if len({result.data_key for result in present}) > 1:
        title = "evaluations, each on other examples: not to be compared"
        rows = tuple(dataclasses.replace(row, lower_is_better=None) for row in rows)
    return (ResultTable("evaluation", title, None, rows),)


def tokens_at(run: ResolvedRun, step: int) -> float | None:
    """How many tokens it had trained on after a step; None where that was not logged."""
    point = chart_queries.at_step(run.conn, run.run.id, "train/tokens", step)
    return point.value if point else None


def _best_title(compared: Sequence[ResolvedSubject]) -> str:
    runs = [resolved.subject.is_run for resolved in compared]
    if all(runs):
        criteria = {resolved.subject.by for resolved in compared}
        words = next(iter(criteria)).words if len(criteria) == 1 else "each by its own eval.best"
        return msg("at their best ({words})", words=words)
    return "runs at their best, checkpoints as named" if any(runs) else "at the checkpoints named"


def _metric_keys(compared: Sequence[ResolvedSubject]) -> list[str]:
    logged = {key for resolved in compared if isinstance(resolved, ResolvedRun) for key in resolved.series}
    evaluated = {key for key in logged if key.startswith("eval/")}
    first = [key for key in ("eval/loss", "eval/perplexity") if key in evaluated]
    return [*first, *sorted(evaluated.difference(first)), *(k for k in ("train/loss", "train/tokens") if k in logged)]


def _rows(
    compared: Sequence[ResolvedSubject], keys: Sequence[str], steps: Sequence[int | None]
) -> tuple[ResultRow, ...]:
    """Each metric at one step of each subject, None where a subject has no such step."""
    rows = []
    for key in keys:
        points = [_point(resolved, key, step) for resolved, step in zip(compared, steps, strict=True)]
        if any(value is not None for value, _ in points):
            values, logged_at = zip(*points, strict=True)
            rows.append(ResultRow(key, values, logged_at, _direction(key, compared)))
    return tuple(rows)


def _direction(key: str, compared: Sequence[ResolvedSubject]) -> bool | None:
    """The natural one; of a metric that only its maker knows, what the runs' eval.best says."""
    natural = lower_is_better(key)
    criteria = [resolved.subject.by for resolved in compared]
    chosen = {by.lower for by in criteria if by.key.partition("@")[0] == key.partition("@")[0]}
    return chosen.pop() if natural is None and len(chosen) == 1 else natural


def _point(resolved: ResolvedSubject, key: str, step: int | None) -> tuple[float | None, int | None]:
    """The metric at that step, or the last one before it, and the step it is from."""
    if step is None or not isinstance(resolved, ResolvedRun) or key not in resolved.series:
        return None, None
    if key == "train/loss":
        return _recent_mean(resolved, key, step), step
    point = chart_queries.at_step(resolved.conn, resolved.run.id, key, step)
    return (point.value, point.step) if point else (None, None)


def _recent_mean(run: ResolvedRun, key: str, step: int) -> float | None:
    first = run.series[key].first_step
    if step < first:
        return None
    chart = chart_queries.chart(run.conn, run.run.id, key, _RECENT, low=first, high=step)
    means = [column.mean for column in chart.columns if column.mean is not None] if chart else []
    return means[-1] if means else None


def _common_evaluation_step(runs: Sequence[ResolvedRun], shortest: int) -> int | None:
    """The last step, no further than the shortest run, at which all were evaluated; None if there is none."""
    if not all("eval/loss" in run.series for run in runs):
        return None
    step = shortest
    for _ in range(100):  # each round goes to an earlier evaluation of some run
        points = [chart_queries.at_step(run.conn, run.run.id, "eval/loss", step) for run in runs]
        evaluated = {point.step for point in points if point is not None}
        if None in points:
            return None
        if len(evaluated) == 1:
            return evaluated.pop() or None
        step = min(evaluated)
    return None


def _least(amounts: Sequence[float | None]) -> float | None:
    """What all have reached; None where that is nothing, or not known of one."""
    reached = [amount for amount in amounts if amount is not None]
    return min(reached) if len(reached) == len(amounts) and min(reached) > 0 else None


def _step_of_tokens(run: ResolvedRun, tokens: float) -> int | None:
    return progress_queries.step_reaching(run.conn, run.run.id, "train/tokens", tokens)


def _seconds_at(run: ResolvedRun, step: int) -> float | None:
    timestamp = progress_queries.moment_at(run.conn, run.run.id, step)
    attempts = progress_queries.attempts(run.conn, run.run)
    return progress_queries.worked(attempts, timestamp) if timestamp is not None and attempts else None


def _step_of_seconds(run: ResolvedRun, seconds: float) -> int | None:
    timestamp = progress_queries.moment_of(progress_queries.attempts(run.conn, run.run), seconds)
    return progress_queries.step_at(run.conn, run.run.id, timestamp + 1e-6)  # a float's rounding must not cost a step
