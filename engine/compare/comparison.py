"""Runs and checkpoints side by side: results, settings that differ, cost, curves, answers, warnings.

Reads summaries, the pyramid and a few single points, so a run of a million points costs no more than a short one.
How sure a difference is takes longer and is asked for separately: `significance.with_evidence`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.compare.aligned_curves import aligned_curves
from engine.compare.comparability import cautions
from engine.compare.comparison_records import Comparison, Diagnosis, Finding, SettingRow
from engine.compare.diagnosis import diagnose
from engine.compare.paired_answers import paired_answers
from engine.compare.result_tables import evaluation_table, result_tables
from engine.compare.run_cost import run_cost
from engine.compare.seed_groups import canonical, seed_groups
from engine.compare.subjects import ResolvedRun, ResolvedSubject, opened
from engine.runs import evaluation_folder
from engine.store import chart_queries, progress_queries, queries
from engine.store.connect import Connection
from engine.store.run_records import ENDED, Column

CURVES = ("train/loss", "eval/loss")
_NO_BETTER_ADVICE = (
    "Its best checkpoint is the untrained one. A lower optim.learning_rate usually helps; if not, look at what is "
    "trained: finetop plan --show 3."
)


def compare(
    workspace: Workspace,
    names: Sequence[str],
    *,
    conn: Connection | None = None,
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
        subjects = tuple(resolved.subject for resolved in compared)
        facts = [_facts(resolved) for resolved in compared]
        settings = [_settings(resolved, of_run) for resolved, of_run in zip(compared, facts, strict=True)]
        chosen = evaluation_folder.choose([_evaluations_of(resolved) for resolved in compared])
        results = (*result_tables(compared), *evaluation_table(chosen))
        return Comparison(
            subjects=subjects,
            results=results,
            settings=_differing(settings),
            costs=tuple(map(run_cost, compared)),
            curves={key: aligned_curves(compared, key, x, columns) for key in curves},
            x=x,
            answers=paired_answers(compared, chosen, answers),
            diagnoses=tuple(map(_diagnoses, compared)),
            groups=seed_groups(compared, facts, settings, results),
            warnings=cautions(subjects, facts, settings, chosen),
            evaluations=tuple(result.folder if result else None for result in chosen),
            notes=_unfinished(compared),
        )


def _facts(resolved: ResolvedSubject) -> dict[str, Mapping[str, Any]]:
    """What the run's journal says of its data, its plan and its model; empty for what is no run."""
    if not isinstance(resolved, ResolvedRun):
        return {}
    return progress_queries.said(resolved.conn, resolved.run.id, ("data", "plan", "model"))


def _settings(resolved: ResolvedSubject, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Settings by path, `auto` replaced by what the run chose; empty for what is no run."""
    if not isinstance(resolved, ResolvedRun):
        return {}
    run = resolved.run
    settings = {setting.key: setting.value for setting in queries.settings(resolved.conn, run.id)}
    settings |= facts.get("plan", {}).get("settings") or {}
    if run.parent_run is not None:
        settings["forked from"] = f"{run.parent_run}@{run.parent_step}"
    return settings


def _differing(settings: Sequence[dict[str, Any]]) -> tuple[SettingRow, ...]:
    """Name, tags, priority and the like (`run.`) change nothing in what is learned and are left out."""
    of_runs = [by_path for by_path in settings if by_path]
    if len(of_runs) < 2:
        return ()
    keys = sorted({key for by_path in of_runs for key in by_path if not key.startswith("run.")})
    rows = (SettingRow(key, tuple(by_path.get(key) for by_path in settings)) for key in keys)
    return tuple(row for row in rows if len({canonical(by_path.get(row.key)) for by_path in of_runs}) > 1)


def _evaluations_of(resolved: ResolvedSubject) -> list[evaluation_folder.EvaluationResult]:
    if not isinstance(resolved, ResolvedRun):
        return [resolved.evaluation]
    subject = resolved.subject
    return evaluation_folder.results_at(resolved.folder, subject.step, subject.last_step, any_step=subject.is_run)


def _diagnoses(resolved: ResolvedSubject) -> tuple[Diagnosis, ...]:
    if not isinstance(resolved, ResolvedRun) or not resolved.subject.is_run:
        return ()
    run, subject = resolved.run, resolved.subject
    keys = [key for key in resolved.series if key.startswith(("eval/", "train/loss")) and "@" not in key]
    curve = {key: _columns(resolved, key) for key in keys}
    diagnoses = diagnose(
        curve.get("train/loss", ()),
        {key: columns for key, columns in curve.items() if key.startswith("eval/")},
        finished=run.state in ENDED,
        share_done=subject.last_step / run.total_steps if run.total_steps and subject.last_step else None,
        run_id=run.id,
    )
    if not subject.no_better:
        return diagnoses
    explained = (Finding.OVER_FITTING, Finding.UNDER_FITTING)
    return (
        Diagnosis(Finding.NO_BETTER, subject.no_better, _NO_BETTER_ADVICE),
        *(diagnosis for diagnosis in diagnoses if diagnosis.finding not in explained),
    )


def _columns(run: ResolvedRun, key: str) -> tuple[Column, ...]:
    chart = chart_queries.chart(run.conn, run.run.id, key, 100)
    return chart.columns if chart else ()


def _unfinished(compared: Sequence[ResolvedSubject]) -> tuple[str, ...]:
    return tuple(
        msg(
            "{letter} has not finished: {state}, step {step:,}{of_total}.",
            letter=resolved.subject.letter,
            state=resolved.run.state,
            step=resolved.subject.last_step or 0,
            of_total=f" of {resolved.run.total_steps:,}" if resolved.run.total_steps else "",
        )
        for resolved in compared
        if isinstance(resolved, ResolvedRun) and resolved.run.state not in ENDED
    )
