"""Runs and checkpoints side by side: results, settings that differ, cost, curves, answers, warnings.

Reads summaries, the pyramid and a few single points, so a run of a million points costs no more than a short one.
How sure a difference is takes longer and is asked for separately: `evidence.with_evidence`.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.compare.comparability import cautions
from engine.compare.comparison_records import (
    Answers,
    Comparison,
    Cost,
    Diagnosis,
    Finding,
    ResultRow,
    ResultTable,
    SeedGroup,
    SettingRow,
)
from engine.compare.diagnosis import diagnose
from engine.compare.subjects import ResolvedSubject, opened
from engine.metrics.names import lower_is_better
from engine.runs import evaluation_folder
from engine.store import chart_queries, gpu_samples, progress_queries, queries
from engine.store.run_records import ENDED, Chart, Column, GpuReading

CURVES = ("train/loss", "eval/loss")
_RECENT = 20
"""The training loss of one step is mostly noise: the mean of the last twentieth of the steps stands for it."""
_NO_BETTER_ADVICE = (
    "Its best checkpoint is the untrained one. A lower optim.learning_rate usually helps; if not, look at what is "
    "trained: finetop plan --show 3."
)
_SEEDS = ("train.seed",)
"""What may differ between seeds of one setting. `data.seed` chooses the validation data, so it is not among them."""
_GAP_SECONDS = 90.0
"""Power readings further apart than the widest thinning (60 s) say nothing about what lies between."""


def compare(
    workspace: Workspace,
    names: Sequence[str],
    *,
    conn: Any = None,
    x: str = "step",
    columns: int = 120,
    curves: Sequence[str] = CURVES,
    answers: int = 20,
) -> Comparison:
    """Two to eight runs (`41`), checkpoints (`41@best`) or evaluation folders; the first is the baseline.

    `conn` is an open reader of runs.db; without one it is opened for the while, and runs it does not have (or not
    wholly) are read from their folders. `columns` and `x` ('step', 'tokens', 'time') are for the curves, `answers`
    limits how many prompts are shown. Raises InputError for a name that stands for nothing.
    """
    if len(names) < 2:
        raise InputError("one thing alone cannot be compared", "Name two at least: finetop compare 40 41@best")
    with opened(workspace, names, conn) as compared:
        subjects = tuple(each.subject for each in compared)
        facts = [
            progress_queries.said(each.conn, each.run.id, ("data", "plan", "model")) if each.run else {}
            for each in compared
        ]
        settings = [_settings(each, said) for each, said in zip(compared, facts, strict=True)]
        chosen = evaluation_folder.choose([_evaluations_of(each) for each in compared])
        results = (*_results(compared), *_evaluation_table(chosen))
        return Comparison(
            subjects=subjects,
            results=results,
            settings=_differing(settings),
            costs=tuple(map(_cost, compared)),
            curves={key: _curves(compared, key, x, columns) for key in curves},
            x=x,
            answers=_answers(compared, chosen, answers),
            diagnoses=tuple(map(_diagnoses, compared)),
            groups=_seed_groups(compared, facts, settings, results),
            warnings=cautions(subjects, facts, settings, chosen),
            evaluations=tuple(result.folder if result else None for result in chosen),
            notes=_unfinished(compared),
        )


# results


def _results(compared: Sequence[ResolvedSubject]) -> tuple[ResultTable, ...]:
    """At best, and at the same step, tokens and time where more than one subject has a course."""
    keys = _metric_keys(compared)
    own = [each.subject.step for each in compared]
    found = [ResultTable("best", _own_title(compared), None, _rows(compared, keys, own))] if keys else []
    running = [each for each in compared if each.run and each.subject.last_step]
    if len(running) < 2:
        return tuple(found)
    step = _common_evaluation_step(running) or min(each.subject.last_step for each in running)
    at = [step if each in running else None for each in compared]
    found.append(ResultTable("step", msg("at the same step, {step:,}", step=step), step, _rows(compared, keys, at)))
    for moment, reach, step_of, words in (
        ("tokens", _tokens, _step_of_tokens, lambda tokens: msg("at the same tokens, {tokens:,.0f}", tokens=tokens)),
        (
            "time",
            _seconds,
            _step_of_seconds,
            lambda seconds: msg("at the same time of work, {seconds:,.0f} s", seconds=seconds),
        ),
    ):
        reached = [reach(each, each.subject.last_step) for each in running]
        if None in reached or min(reached) <= 0:
            continue
        bound = min(reached)
        at = [step_of(each, bound) if each in running else None for each in compared]
        found.append(ResultTable(moment, words(bound), bound, _rows(compared, keys, at)))
    return tuple(found)


def _own_title(compared: Sequence[ResolvedSubject]) -> str:
    runs = [each.subject.is_run for each in compared]
    if all(runs):
        by = {each.subject.by for each in compared}
        return msg(
            "at their best ({words})", words=next(iter(by)).words if len(by) == 1 else "each by its own eval.best"
        )
    return "runs at their best, checkpoints as named" if any(runs) else "at the checkpoints named"


def _metric_keys(compared: Sequence[ResolvedSubject]) -> list[str]:
    found = {key for each in compared for key in each.series or () if key.startswith("eval/")}
    first = [key for key in ("eval/loss", "eval/perplexity") if key in found]
    train = [key for key in ("train/loss", "train/tokens") if any(key in (each.series or ()) for each in compared)]
    return [*first, *sorted(found.difference(first)), *train]


def _rows(compared: Sequence[ResolvedSubject], keys: Sequence[str], at: Sequence[int | None]) -> tuple[ResultRow, ...]:
    rows = []
    for key in keys:
        points = [_value(each, key, step) for each, step in zip(compared, at, strict=True)]
        if any(value is not None for value, _ in points):
            values, steps = zip(*points, strict=True)
            rows.append(ResultRow(key, values, steps, _direction(key, compared)))
    return tuple(rows)


def _direction(key: str, compared: Sequence[ResolvedSubject]) -> bool | None:
    """The natural one; of a metric that only its maker knows, what the runs' eval.best says."""
    known = lower_is_better(key)
    said = {
        each.subject.by.lower for each in compared if each.subject.by.key.partition("@")[0] == key.partition("@")[0]
    }
    return said.pop() if known is None and len(said) == 1 else known


def _value(each: ResolvedSubject, key: str, step: int | None) -> tuple[float | None, int | None]:
    """The metric at that step, or the last one before it, and the step it is from."""
    if step is None or not each.series or key not in each.series:
        return None, None
    if key == "train/loss":
        return _recent_mean(each, key, step), step
    point = chart_queries.at_step(each.conn, each.run.id, key, step)
    return (point.value, point.step) if point else (None, None)


def _recent_mean(each: ResolvedSubject, key: str, step: int) -> float | None:
    first = each.series[key].first_step
    if step < first:
        return None
    chart = chart_queries.chart(each.conn, each.run.id, key, _RECENT, low=first, high=step)
    means = [column.mean for column in chart.columns if column.mean is not None] if chart else []
    return means[-1] if means else None


def _common_evaluation_step(running: Sequence[ResolvedSubject]) -> int | None:
    """The last step, no further than the shortest run, at which all were evaluated; None if there is none."""
    if not all("eval/loss" in each.series for each in running):
        return None
    step = min(each.subject.last_step for each in running)
    for _ in range(100):  # each round goes to an earlier evaluation of some run
        points = [chart_queries.at_step(each.conn, each.run.id, "eval/loss", step) for each in running]
        if None in points:
            return None
        earliest = min(point.step for point in points)
        if all(point.step == earliest for point in points):
            return earliest or None
        step = earliest
    return None


def _tokens(each: ResolvedSubject, step: int) -> float | None:
    point = chart_queries.at_step(each.conn, each.run.id, "train/tokens", step)
    return point.value if point else None


def _step_of_tokens(each: ResolvedSubject, tokens: float) -> int | None:
    return progress_queries.step_reaching(each.conn, each.run.id, "train/tokens", tokens)


def _seconds(each: ResolvedSubject, step: int) -> float | None:
    moment = progress_queries.moment_at(each.conn, each.run.id, step)
    attempts = progress_queries.attempts(each.conn, each.run)
    return progress_queries.worked(attempts, moment) if moment is not None and attempts else None


def _step_of_seconds(each: ResolvedSubject, seconds: float) -> int | None:
    moment = progress_queries.moment_of(progress_queries.attempts(each.conn, each.run), seconds)
    return progress_queries.step_at(each.conn, each.run.id, moment + 1e-6)  # a float's rounding must not cost a step


def _evaluations_of(each: ResolvedSubject) -> list[evaluation_folder.EvaluationResult]:
    if each.evaluation is not None:
        return [each.evaluation]
    return evaluation_folder.results_at(
        each.folder, each.subject.step, each.subject.last_step, any_step=each.subject.is_run
    )


def _evaluation_table(chosen: Sequence[evaluation_folder.EvaluationResult | None]) -> tuple[ResultTable, ...]:
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


# settings, seeds, cost


def _settings(each: ResolvedSubject, said: dict[str, Any]) -> dict[str, Any]:
    """Settings by path, `auto` replaced by what the run chose; empty for what is no run."""
    if not each.run:
        return {}
    settings = {value.key: value.value for value in queries.settings(each.conn, each.run.id)}
    settings |= said.get("plan", {}).get("settings") or {}
    if each.run.parent_run is not None:
        settings["forked from"] = f"{each.run.parent_run}@{each.run.parent_step}"
    return settings


def _differing(settings: Sequence[dict[str, Any]]) -> tuple[SettingRow, ...]:
    """Name, tags, priority and the like (`run.`) change nothing in what is learned and are left out."""
    with_settings = [each for each in settings if each]
    if len(with_settings) < 2:
        return ()
    keys = sorted({key for each in with_settings for key in each if not key.startswith("run.")})
    rows = (SettingRow(key, tuple(each.get(key) for each in settings)) for key in keys)
    return tuple(row for row in rows if len({_plain(each.get(row.key)) for each in with_settings}) > 1)


def _seed_groups(
    compared: Sequence[ResolvedSubject],
    facts: Sequence[dict[str, Any]],
    settings: Sequence[dict[str, Any]],
    results: Sequence[ResultTable],
) -> tuple[SeedGroup, ...]:
    """Mean and spread of each metric over subjects of the same settings and data, but for the seed."""
    groups: dict[str, list[int]] = {}
    for index, (each, own) in enumerate(zip(compared, settings, strict=True)):
        if own:
            same = {key: value for key, value in own.items() if key not in _SEEDS and not key.startswith("run.")}
            hashes = [file.get("sha256") for file in facts[index].get("data", {}).get("files") or ()]
            step = None if each.subject.is_run else each.subject.step
            groups.setdefault(_plain([same, hashes, step]), []).append(index)
    rows = next((table.rows for table in results if table.moment == "best"), ())
    found = []
    for members in groups.values():
        if len({_plain([settings[i].get(key) for key in _SEEDS]) for i in members}) < 2:
            continue
        for row in rows:
            values = [row.values[i] for i in members if row.values[i] is not None]
            if row.lower_is_better is None or len(values) < 2:
                continue
            mean = math.fsum(values) / len(values)
            spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
            letters = ", ".join(compared[i].subject.letter for i in members)
            sentence = msg(
                "{letters}: {num_values} seeds of one setting, {key} {mean:.4g} ± {spread:.2g}",
                letters=letters,
                num_values=len(values),
                key=row.key,
                mean=mean,
                spread=spread,
            )
            found.append(SeedGroup(tuple(members), row.key, mean, spread, sentence))
    return tuple(found)


def _cost(each: ResolvedSubject) -> Cost:
    if not each.run:
        return Cost()
    run, series = each.run, each.series
    attempts = progress_queries.attempts(each.conn, run)
    seconds = progress_queries.worked(attempts) if attempts else None
    tokens = _tokens(each, each.subject.last_step) if each.subject.last_step is not None else None
    speed = series.get("train/tokens_per_s")
    sizes = [c.bytes for c in queries.checkpoints(each.conn, run.id, removed=True) if c.bytes is not None]
    gpu_seconds, joules, peak = _gpu_use(each)
    if gpu_seconds is None and seconds is not None and run.gpus:
        gpu_seconds = seconds * len(run.gpus)
    return Cost(
        seconds=seconds,
        gpu_hours=gpu_seconds / 3600 if gpu_seconds else None,
        energy_wh=joules / 3600 if joules is not None else None,
        peak_memory_bytes=peak,
        checkpoint_bytes=sizes[0] if sizes else None,
        tokens=round(tokens) if tokens is not None else None,
        tokens_per_second=speed.last if speed else None,
    )


def _gpu_use(each: ResolvedSubject) -> tuple[float | None, float | None, int | None]:
    """GPU seconds, joules and peak memory: as the daemon has kept them, else what worker and readings tell."""
    kept = json.loads(queries.get_meta(each.conn, f"usage:{each.run.id}") or "{}")
    seconds, joules, peak = (kept.get(name) for name in ("gpu_seconds", "energy_joules", "peak_memory_bytes"))
    if peak is None:
        told = progress_queries.said(each.conn, each.run.id, ("memory",)).get("memory", {})
        peak = told.get("reserved_bytes") or told.get("peak_bytes")
    if joules is None:
        joules = _integrated(gpu_samples.gpu_readings(each.conn, run_id=each.run.id))
    return seconds, joules, peak


def _integrated(readings: Sequence[GpuReading]) -> float | None:
    """Joules by the power readings of a run's GPUs, gaps left out."""
    joules, last = None, {}
    for reading in readings:
        before = last.get(reading.gpu)
        if before and None not in (before.power_watts, reading.power_watts):
            span = reading.time - before.time
            if span <= _GAP_SECONDS:
                joules = (joules or 0.0) + span * (before.power_watts + reading.power_watts) / 2
        last[reading.gpu] = reading
    return joules


# curves, answers, diagnoses


def _curves(compared: Sequence[ResolvedSubject], key: str, x: str, columns: int) -> tuple[Chart | None, ...]:
    """One chart for each subject over the range of the longest; a checkpoint's ends where it stands."""
    ends = [_end(each, x) for each in compared if each.run and each.series and key in each.series]
    high = max((end for end in ends if end is not None), default=None)
    return tuple(_curve(each, key, x, columns, high) for each in compared)


def _end(each: ResolvedSubject, x: str) -> float | None:
    step = each.subject.last_step
    if step is None or x == "step":
        return step
    if x == "tokens":
        return _tokens(each, step)
    begin, end = (
        progress_queries.moment_at(each.conn, each.run.id, at) for at in (each.series["train/loss"].first_step, step)
    )
    return end - begin if begin is not None and end is not None else None


def _curve(each: ResolvedSubject, key: str, x: str, columns: int, high: float | None) -> Chart | None:
    if not each.run or high is None or not each.series or key not in each.series:
        return None
    chart = chart_queries.chart(each.conn, each.run.id, key, columns, x, low=0, high=high)
    if chart is None or each.subject.is_run:
        return chart
    until = each.subject.last_step
    kept = tuple(column for column in chart.columns if column.first_step <= until)
    return Chart(chart.run_id, chart.key, chart.x, chart.low_x, chart.high_x, kept)


def _answers(
    compared: Sequence[ResolvedSubject], chosen: Sequence[evaluation_folder.EvaluationResult | None], limit: int
) -> tuple[Answers, ...]:
    """Of evaluations on the same examples where all have one, else what was sampled during training."""
    if limit <= 0:
        return ()
    if None not in chosen and len({result.data_key for result in chosen}) == 1:
        told = [
            evaluation_folder.by_example(evaluation_folder.read_predictions(result.folder, limit)) for result in chosen
        ]
        if any(prediction.text is not None for prediction in told[0].values()):
            steps = tuple(result.step for result in chosen)
            common = [key for key in told[0] if all(key in each for each in told)]
            return tuple(
                Answers(
                    told[0][key].prompt,
                    told[0][key].reference,
                    tuple(each[key].text for each in told),
                    steps,
                    tuple(each[key].scores for each in told),
                )
                for key in common[:limit]
            )
    return _sampled(compared, limit)


def _sampled(compared: Sequence[ResolvedSubject], limit: int) -> tuple[Answers, ...]:
    texts: dict[str, dict[int, str]] = {}
    references: dict[str, str | None] = {}
    steps: list[int | None] = []
    for index, each in enumerate(compared):
        until = each.subject.step
        step = progress_queries.sampled_step(each.conn, each.run.id, until) if each.run and until is not None else None
        steps.append(step)
        for sample in queries.samples(each.conn, each.run.id, step) if step is not None else ():
            texts.setdefault(sample.prompt, {})[index] = sample.text
            if sample.reference is not None:
                references[sample.prompt] = sample.reference
    found = sorted(texts, key=lambda prompt: -len(texts[prompt]))  # stable: those that all answered come first
    return tuple(
        Answers(
            prompt,
            references.get(prompt),
            tuple(texts[prompt].get(index) for index in range(len(compared))),
            tuple(step if index in texts[prompt] else None for index, step in enumerate(steps)),
        )
        for prompt in found[:limit]
    )


def _diagnoses(each: ResolvedSubject) -> tuple[Diagnosis, ...]:
    if not each.run or not each.subject.is_run:
        return ()
    keys = [key for key in each.series if key.startswith(("eval/", "train/loss")) and "@" not in key]
    curve = {key: _columns(each, key) for key in keys}
    found = diagnose(
        curve.get("train/loss", ()),
        {key: columns for key, columns in curve.items() if key.startswith("eval/")},
        finished=each.run.state in ENDED,
        share_done=each.subject.last_step / each.run.total_steps if each.run.total_steps and each.subject.last_step
        else None,
    )  # fmt: skip
    if not each.subject.no_better:
        return found
    others = tuple(one for one in found if one.finding not in (Finding.OVER_FITTING, Finding.UNDER_FITTING))
    return (Diagnosis(Finding.NO_BETTER, each.subject.no_better, _NO_BETTER_ADVICE), *others)


def _columns(each: ResolvedSubject, key: str) -> tuple[Column, ...]:
    chart = chart_queries.chart(each.conn, each.run.id, key, 100)
    return chart.columns if chart else ()


def _unfinished(compared: Sequence[ResolvedSubject]) -> tuple[str, ...]:
    found = []
    for each in compared:
        if each.run and each.run.state not in ENDED:
            total = f" of {each.run.total_steps:,}" if each.run.total_steps else ""
            step = each.subject.last_step or 0
            found.append(
                msg(
                    "{letter} has not finished: {state}, step {step:,}{total}.",
                    letter=each.subject.letter,
                    state=each.run.state,
                    step=step,
                    total=total,
                )
            )
    return tuple(found)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
