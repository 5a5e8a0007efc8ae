"""A comparison as sections: titled rows and sentences, from which the commands, Markdown and the screen are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.compare.comparison_records import Comparison, Cost, ResultRow, ResultTable, Subject
from engine.metrics.best_evaluation import LOSS
from engine.metrics.names import metric_name
from engine.present.numbers import bytes_text, count, duration, metric, setting_text, short

COSTS = {
    "seconds": "time at work",
    "gpu_hours": "GPU-hours",
    "energy_wh": "energy",
    "peak_memory_bytes": "peak memory",
    "checkpoint_bytes": "checkpoint size",
    "tokens": "tokens trained on",
    "tokens_per_second": "tokens/s",
}
"""The fields of `Cost`, and what they are called."""
SETTINGS = "settings that differ"
_MINUS = "−"
_LONG_COUNT = 10_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of every subject."""

    name: str
    values: tuple[str, ...]
    differences: tuple[str, ...] = ()
    """Of each subject to the first, empty for the first itself; () where there is nothing to subtract."""
    better: tuple[bool | None, ...] = ()
    """For each difference whether it is for the better; None where neither is."""
    best: int | None = None
    """Which subject has the best value, if one has."""
    arrow: str = ""
    """▼ where less is better, ▲ where more is."""


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table, or sentences."""

    title: str
    rows: tuple[Row, ...] = ()
    lines: tuple[str, ...] = ()


def sections(comparison: Comparison) -> list[Section]:
    """Everything but curves and answers, the verdict first; empty sections are left out."""
    every_section = [
        Section("verdict", lines=tuple(evidence.sentence for evidence in comparison.evidence)),
        Section("watch out", lines=comparison.warnings),
        *(_results(table) for table in _telling(comparison.results)),
        Section("seeds", lines=tuple(group.sentence for group in comparison.groups)),
        Section(
            SETTINGS,
            tuple(Row(setting.key, tuple(map(setting_text, setting.values))) for setting in comparison.settings),
        ),
        Section("cost", tuple(_cost_rows(comparison.costs))),
        Section("what the curves show", lines=tuple(_findings(comparison))),
        Section("notes", lines=comparison.notes),
    ]
    return [section for section in every_section if section.rows or section.lines]


def subject_text(subject: Subject) -> str:
    """`qwen-sql, done, step 1,200`: what is known of it beside its name."""
    parts = [subject.title, subject.state.value if subject.state else ""]
    if subject.step is not None:
        by = "" if subject.by == LOSS else f" by {subject.by.name}"
        parts.append(f"{f'best{by} at step' if subject.is_run and not subject.no_better else 'step'} {subject.step:,}")
    parts.append(subject.no_better)
    return ", ".join(part for part in parts if part)


def value_text(key: str, value: float | None) -> str:
    """A metric's value: whole numbers for counts, else four significant digits."""
    if value is None or not math.isfinite(value):
        return "—" if value is None else str(value)
    if key.endswith(("tokens", "step")):
        return count(value) if abs(value) < _LONG_COUNT else short(value)
    return metric(value)


def _telling(tables: Sequence[ResultTable]) -> list[ResultTable]:
    """Without those whose figures stand in an earlier table, as with finished runs of the same length, and those that
    set nothing against anything, unless there are no others."""
    kept: list[ResultTable] = []
    for table in tables:
        comparable = any(sum(value is not None for value in row.values) > 1 for row in table.rows)
        if comparable and not any(table.rows == earlier.rows for earlier in kept):
            kept.append(table)
    return kept or [table for table in tables if table.rows][:1]


def _results(table: ResultTable) -> Section:
    rows = [_result_row(row) for row in table.rows]
    steps = {row.steps for row in table.rows if any(step is not None for step in row.steps)}
    if steps and any(len(set(row)) > 1 or len(steps) > 1 for row in steps):
        first = next(row.steps for row in table.rows if row.steps in steps)
        rows.append(Row("  at step", tuple("—" if step is None else count(step) for step in first)))
    return Section(table.title, tuple(rows))


def _result_row(row: ResultRow) -> Row:
    subjects = range(len(row.values))
    return Row(
        metric_name(row.key),
        tuple(value_text(row.key, value) for value in row.values),
        tuple(_difference_text(row, index) for index in subjects),
        tuple(_is_better(row, index) for index in subjects),
        row.best,
        {True: "▼", False: "▲", None: ""}[row.lower_is_better],
    )


def _difference_text(row: ResultRow, index: int) -> str:
    """The signed difference to the first subject; empty for the first itself."""
    difference = row.differences[index]
    if index == 0:
        return ""
    if difference is None or not math.isfinite(difference):
        return "—"
    if row.key.endswith(("tokens", "step")):
        return _sign(difference) + value_text(row.key, abs(difference))
    return f"{_sign(difference)}{abs(difference):.3g}"


def _sign(difference: float) -> str:
    return _MINUS if difference < 0 else "+"


def _is_better(row: ResultRow, index: int) -> bool | None:
    difference = row.differences[index]
    if not difference or row.lower_is_better is None:
        return None
    return (difference < 0) == row.lower_is_better


def _cost_rows(costs: Sequence[Cost]) -> list[Row]:
    rows = []
    for name, title in COSTS.items():
        values = [getattr(cost, name) for cost in costs]
        if any(value is not None for value in values):
            differences = ("", *(_share_text(values[0], value) for value in values[1:]))
            rows.append(Row(title, tuple(_cost_text(name, value) for value in values), differences))
    return rows


def _share_text(baseline: float | None, value: float | None) -> str:
    """How much more or less than the first subject, in percent; empty where that cannot be said."""
    if not baseline or value is None:
        return ""
    ratio = value / baseline
    if ratio >= 10:
        return f"×{short(ratio)}"
    rounded = round((ratio - 1) * 100)
    return "=" if rounded == 0 else f"{_sign(rounded)}{abs(rounded)}%"


def _cost_text(name: str, value: float | None) -> str:
    if value is None:
        return "—"
    if name == "seconds":
        return duration(value)
    if name.endswith("bytes"):
        return bytes_text(value)
    if name == "energy_wh":
        return f"{value / 1000:.2f} kWh" if value >= 1000 else f"{value:.3g} Wh"
    return f"{value:.2f}" if name == "gpu_hours" else value_text("tokens", value)


def _findings(comparison: Comparison) -> list[str]:
    return [
        f"{subject.letter} {diagnosis.finding.value}: {diagnosis.reason.rstrip('.')}. {diagnosis.advice}".strip()
        for subject, diagnoses in zip(comparison.subjects, comparison.diagnoses, strict=True)
        for diagnosis in diagnoses
    ]
