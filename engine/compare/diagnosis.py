"""What a run's curves show, and on what grounds. Pure: columns of charts in, findings out.

The thresholds are judgements, chosen on drawn curves (tests/engine/compare/test_diagnosis.py) so that ordinary noise
of a training loss is never reported: better to say nothing than to have a user look for a fault that is none.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence

from engine.base.messages import msg
from engine.compare.comparison_records import Diagnosis, Finding
from engine.compare.finite_columns import finite_columns
from engine.store.run_records import Column

_ENOUGH_COLUMNS = 10
_ENOUGH_EVALUATIONS = 3
_TOO_EARLY = 0.2
"""Share of a run before which a loss that has not fallen says nothing: warm-up, and few steps."""
_LEAST_LEAP = 0.1
"""Share of what a run has learned that a leap of its loss must throw back to count."""
_FORMAT_WORDS = ("json", "schema", "format", "valid")
_FORMAT_JUMP = 0.1


def diagnose(
    train: Sequence[Column],
    evaluations: Mapping[str, Sequence[Column]],
    *,
    finished: bool,
    share_done: float | None = None,
    run_id: int | None = None,
) -> tuple[Diagnosis, ...]:
    """Findings from the training loss and the evaluations by metric, the gravest first.

    Columns are those of `store.charts.chart`, in order, the training loss in a hundred or fewer. `share_done` is the
    share of the planned steps that were made; advice names the run by its id, where it is given.
    """
    validation = evaluations.get("eval/loss", ())
    diverging = _diverging(train)
    diagnoses = [
        diverging,
        None if diverging else _unstable(train),
        _over_fitting(train, validation),
        None if diverging else _still_improving(train, validation, finished, run_id),
        *(_unstable_format(key, columns) for key, columns in sorted(evaluations.items())),
    ]
    if not any(diagnoses) and (finished or (share_done or 0.0) >= _TOO_EARLY):
        diagnoses.append(_under_fitting(train, validation))
    return tuple(diagnosis for diagnosis in diagnoses if diagnosis)


def _diverging(train: Sequence[Column]) -> Diagnosis | None:
    advice = "A lower optim.learning_rate usually helps, or more warm-up; go on from the best checkpoint, not the last."
    if train and train[-1].nonfinite:
        step = next(column.first_step for column in train if column.nonfinite)
        return Diagnosis(
            Finding.DIVERGING, msg("the training loss is not a number (first near step {step:,})", step=step), advice
        )
    means = _means(train)
    if len(means) < _ENOUGH_COLUMNS:
        return None
    width = max(2, len(means) // 10)
    windows = [statistics.fmean(means[i : i + width]) for i in range(len(means) - width + 1)]
    lowest = min(range(len(windows)), key=windows.__getitem__)
    first, best, last = windows[0], windows[lowest], windows[-1]
    # Half of what had been learned is lost again, and far more than the noise of a window's mean.
    rise = last - best
    if rise <= max(0.5 * (first - best), 6 * _noise(means) / width**0.5, 0.1 * abs(best)):
        return None
    step = finite_columns(train)[lowest].first_step
    return Diagnosis(
        Finding.DIVERGING,
        msg(
            "the training loss was lowest near step {step:,} ({best:.4g}) and has risen to {last:.4g} since",
            step=step,
            best=best,
            last=last,
        ),
        advice,
    )


def _unstable(train: Sequence[Column]) -> Diagnosis | None:
    columns = finite_columns(train)
    if len(columns) < 2 * _ENOUGH_COLUMNS:
        return None
    reach = 7
    # Where nearly all has been learned, a batch with one hard example stands at a multiple of a level near zero.
    means = [column.mean for column in columns]
    learned = statistics.fmean(means[: max(2, len(means) // 20)]) - min(means)
    spikes = []
    for i, column in enumerate(columns):
        if i < len(columns) // 20:
            continue  # warm-up
        near = columns[max(0, i - reach) : i + reach + 1]
        level = statistics.median(neighbour.mean for neighbour in near)
        usual = statistics.median(neighbour.high - neighbour.mean for neighbour in near)
        usual = max(usual, statistics.median(abs(neighbour.mean - level) for neighbour in near))
        if column.high - level > max(5 * usual, 0.5 * abs(level), _LEAST_LEAP * learned):
            spikes.append(column)
    if len(spikes) < 3:
        return None
    worst = max(spikes, key=lambda column: column.high)
    return Diagnosis(
        Finding.UNSTABLE,
        msg(
            "the training loss leaps {spikes:,} times to a multiple of what is around it, up to {worst:.4g} near "
            "step {step:,}",
            spikes=len(spikes),
            worst=worst.high,
            step=worst.first_step,
        ),
        "A lower optim.learning_rate, a larger train.batch_size or a smaller optim.grad_clip calm it; look at the rows "
        "of these steps for broken or very unusual examples.",
    )


def _over_fitting(train: Sequence[Column], validation: Sequence[Column]) -> Diagnosis | None:
    points = finite_columns(validation)
    if len(points) < _ENOUGH_EVALUATIONS:
        return None
    values = [point.mean for point in points]
    lowest = min(range(len(values)), key=values.__getitem__)
    since = values[lowest + 1 :]
    if not since:
        return None
    rise = since[-1] - values[lowest]
    # One evaluation above the best may be chance; several, or one far above it, are not.
    enough = 0.02 if len(since) >= 2 and min(since[-2:]) > 1.01 * values[lowest] else 0.05
    if rise <= enough * abs(values[lowest]):
        return None
    then, now = _level_at(train, points[lowest].first_step), _level_at(train, points[-1].last_step)
    if then is None or now is None or now > then:
        return None  # the training loss rises too: not memory, but another fault
    step = points[lowest].first_step
    return Diagnosis(
        Finding.OVER_FITTING,
        msg(
            "the eval loss was lowest at step {step:,} ({lowest:.4g}) and has risen by "
            "{percent:.0f}% to {last:.4g}, while the training loss went from {then:.4g} to "
            "{now:.4g}",
            step=step,
            lowest=values[lowest],
            percent=100 * rise / values[lowest],
            last=since[-1],
            then=then,
            now=now,
        ),
        "Use the best checkpoint, not the last. Fewer epochs, a lower rate, lora.dropout or more data help; "
        "train.early_stopping ends such a run by itself.",
    )


def _still_improving(
    train: Sequence[Column], validation: Sequence[Column], finished: bool, run_id: int | None
) -> Diagnosis | None:
    points, name, enough = finite_columns(validation), "eval", 0.01
    if len(points) < _ENOUGH_EVALUATIONS:
        points, name, enough = finite_columns(train), "training", 0.05
        if len(points) < 2 * _ENOUGH_COLUMNS or validation:
            return None
        width = len(points) // 8
        late = statistics.fmean(point.mean for point in points[-width:])
        early = statistics.fmean(point.mean for point in points[-3 * width : -2 * width])
        since = points[-3 * width].first_step
    else:
        values = [point.mean for point in points]
        if min(values) != values[-1]:
            return None
        border = points[0].first_step + 0.75 * (points[-1].last_step - points[0].first_step)
        start = max(i for i, point in enumerate(points[:-1]) if i == 0 or point.last_step <= border)
        early, late, since = values[start], values[-1], points[start].first_step
    fall = early - late
    if early <= 0 or fall < enough * early:
        return None
    how = "" if run_id is None else msg(": finetop resume {run_id} --epochs N", run_id=run_id)
    return Diagnosis(
        Finding.STILL_IMPROVING,
        msg(
            "the {name} loss fell by {percent:.1f}% since step {since:,}, to {late:.4g}, its lowest",
            name=name,
            percent=100 * fall / early,
            since=since,
            late=late,
        )
        if name == "eval"
        else msg(
            "the {name} loss fell by {percent:.1f}% since step {since:,}, to {late:.4g}",
            name=name,
            percent=100 * fall / early,
            since=since,
            late=late,
        ),
        msg("More epochs would probably help{how}.", how=how) if finished else "Let it go on.",
    )


def _under_fitting(train: Sequence[Column], validation: Sequence[Column]) -> Diagnosis | None:
    means = _means(train)
    if len(means) < _ENOUGH_COLUMNS:
        return None
    width = max(1, len(means) // 10)
    first, last = statistics.fmean(means[:width]), statistics.fmean(means[-width:])
    if first <= 0 or first - last >= 0.05 * first:
        return None
    values = _means(validation)
    if len(values) >= 2 and values[0] > 0 and values[0] - min(values) >= 0.05 * values[0]:
        return None
    return Diagnosis(
        Finding.UNDER_FITTING,
        msg(
            "the training loss has hardly moved: {first:.4g} at the beginning, {last:.4g} at the end",
            first=first,
            last=last,
        ),
        "A higher optim.learning_rate, more epochs or a larger lora.r teach more, unless the model knew this data "
        "already: look at its answers.",
    )


def _unstable_format(key: str, columns: Sequence[Column]) -> Diagnosis | None:
    if not any(word in key for word in _FORMAT_WORDS):
        return None
    values = _means(columns)
    if len(values) < _ENOUGH_EVALUATIONS:
        return None
    changes = [later - earlier for earlier, later in itertools.pairwise(values)]
    leaps = [change for change in changes if abs(change) > _FORMAT_JUMP]
    turns = sum(a * b < 0 for a, b in itertools.pairwise(leaps))
    if turns < 2 and max(values) - values[-1] <= _FORMAT_JUMP:
        return None
    shown = ", ".join(f"{value:.2f}" for value in values[-5:])
    return Diagnosis(
        Finding.UNSTABLE_FORMAT,
        msg("{key} goes up and down between evaluations ({shown})", key=key, shown=shown) if turns >= 2
        else msg("{key} fell from {highest:.2f} to {last:.2f}", key=key, highest=max(values), last=values[-1]),
        "The form of the answers is not learned for good: more examples of it, or a lower rate; keep the checkpoint "
        "where it was best.",
    )  # fmt: skip


def _means(columns: Sequence[Column]) -> list[float]:
    return [column.mean for column in columns if column.mean is not None]


def _noise(means: Sequence[float]) -> float:
    """The standard deviation of a column's mean around the trend, from what neighbours differ by (robust)."""
    steps = [abs(later - earlier) for earlier, later in itertools.pairwise(means)]
    return 1.4826 * statistics.median(steps) / 2**0.5 if steps else 0.0


def _level_at(train: Sequence[Column], step: int) -> float | None:
    """The training loss around a step: the mean of the columns nearest to it."""
    columns = sorted(finite_columns(train), key=lambda column: abs((column.first_step + column.last_step) / 2 - step))
    width = max(1, len(columns) // 20)
    return statistics.fmean(column.mean for column in columns[:width]) if columns else None
