"""A comparison as sections of text: what the terminal prints, and Markdown, CSV and JSON of the same."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.compare.comparison_records import Comparison, ResultRow, ResultTable, Subject
from engine.metrics.best_evaluation import LOSS
from engine.metrics.names import metric_name
from engine.present.numbers import bytes_text

_COSTS = {
    "seconds": "time at work",
    "gpu_hours": "GPU-hours",
    "energy_wh": "energy",
    "peak_memory_bytes": "peak memory",
    "checkpoint_bytes": "checkpoint size",
    "tokens": "tokens trained on",
    "tokens_per_second": "tokens/s",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table, or sentences, or both."""

    title: str
    head: tuple[str, ...] = ()
    """Titles of the columns after the first."""
    rows: tuple[tuple[str, ...], ...] = ()
    """Name, then one cell for each column."""
    lines: tuple[str, ...] = ()


def sections(comparison: Comparison) -> list[Section]:
    """Everything but curves and answers, the verdict first; empty sections are left out."""
    letters = tuple(subject.letter for subject in comparison.subjects)
    found = [
        Section("verdict", lines=tuple(evidence.sentence for evidence in comparison.evidence)),
        Section("watch out", lines=comparison.warnings),
        *(_results(table, comparison.subjects) for table in _telling(comparison.results)),
        Section("seeds", lines=tuple(group.sentence for group in comparison.groups)),
        Section(
            "settings that differ",
            letters,
            tuple((row.key, *map(setting_text, row.values)) for row in comparison.settings),
        ),
        Section("cost", letters, tuple(_costs(comparison))),
        Section("what the curves show", lines=tuple(_findings(comparison))),
        Section("notes", lines=comparison.notes),
    ]
    return [section for section in found if section.rows or section.lines]


def value_text(key: str, value: float | None) -> str:
    """A metric's value: whole numbers for counts, else four significant digits."""
    if value is None:
        return "—"
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if key.endswith(("tokens", "step")) else f"{value:.4g}"


def setting_text(value: Any) -> str:
    """A setting's value on one line."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ",".join(map(setting_text, value)) or "—"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value) or "—"


def subject_text(subject: Subject) -> str:
    """`qwen-sql, done, step 1,200`: what is known of it beside its name."""
    parts = [subject.title, subject.state.value if subject.state else ""]
    if subject.step is not None:
        by = "" if subject.by == LOSS else f" by {subject.by.name}"
        parts.append(f"{f'best{by} at step' if subject.is_run and not subject.no_better else 'step'} {subject.step:,}")
    parts.append(subject.no_better)
    return ", ".join(part for part in parts if part)


def _telling(tables: Sequence[ResultTable]) -> list[ResultTable]:
    """Without those whose figures stand in an earlier table, as with finished runs of the same length, and those that
    set nothing against anything."""
    kept: list[ResultTable] = []
    for table in tables:
        rivals = any(sum(value is not None for value in row.values) > 1 for row in table.rows)
        if rivals and not any(table.rows == earlier.rows for earlier in kept):
            kept.append(table)
    return kept


def _results(table: ResultTable, subjects: Sequence[Subject]) -> Section:
    letters = [subject.letter for subject in subjects]
    two = len(letters) == 2
    head = (*letters, f"{letters[1]} - {letters[0]}") if two else tuple(letters)
    rows: list[tuple[str, ...]] = []
    for row in table.rows:
        cells = [
            value_text(row.key, value) + ("*" if index == row.best else "") for index, value in enumerate(row.values)
        ]
        differences = [difference_text(row, index) for index in range(len(letters))]
        rows.append((metric_name(row.key), *cells, *(differences[1:] if two else ())))
        if not two and row.lower_is_better is not None:
            rows.append((f"  against {letters[0]}", *differences))
    steps = {row.steps for row in table.rows if any(step is not None for step in row.steps)}
    if steps and any(len(set(row)) > 1 or len(steps) > 1 for row in steps):
        first = next(row.steps for row in table.rows if row.steps in steps)
        cells = ["—" if step is None else f"{step:,}" for step in first]
        rows.append(("  at step", *cells, *([""] if two else [])))
    return Section(table.title, head, tuple(rows))


def difference_text(row: ResultRow, index: int) -> str:
    """The signed difference to the baseline; empty for the baseline itself."""
    difference = row.differences[index]
    if index == 0:
        return ""
    if difference is None or not math.isfinite(difference):
        return "—"
    return f"{difference:+,.0f}" if row.key.endswith(("tokens", "step")) else f"{difference:+.3g}"


def _costs(comparison: Comparison) -> list[tuple[str, ...]]:
    rows = []
    for name, title in _COSTS.items():
        values = [getattr(cost, name) for cost in comparison.costs]
        if any(value is not None for value in values):
            rows.append((title, *(_cost_text(name, value) for value in values)))
    return rows


def _cost_text(name: str, value: float | None) -> str:
    if value is None:
        return "—"
    if name == "seconds":
        return f"{value / 3600:.2f} h" if value >= 3600 else f"{value:.0f} s"
    if name.endswith("bytes"):
        return bytes_text(value)
    if name == "energy_wh":
        return f"{value / 1000:.2f} kWh" if value >= 1000 else f"{value:.3g} Wh"
    return f"{value:.2f}" if name == "gpu_hours" else f"{value:,.0f}"


def _findings(comparison: Comparison) -> list[str]:
    return [
        f"{subject.letter} {diagnosis.finding.value}: {diagnosis.reason}. {diagnosis.advice}"
        for subject, diagnoses in zip(comparison.subjects, comparison.diagnoses, strict=True)
        for diagnosis in diagnoses
    ]


# Markdown, CSV, JSON


def markdown(comparison: Comparison, answers: int = 5) -> str:
    """For a pull request or a notebook; ends in a newline."""
    lines = ["| | run | |", "|---|---|---|"]
    lines += [f"| {s.letter} | {_cell(s.asked)} | {_cell(subject_text(s))} |" for s in comparison.subjects]
    for section in sections(comparison):
        lines += ["", f"**{_cell(section.title[:1].upper() + section.title[1:])}**", ""]
        if section.rows:
            lines += ["| | " + " | ".join(section.head) + " |", "|---|" + "---:|" * len(section.head)]
            lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in section.rows]
        lines += [f"- {_cell(line)}" for line in section.lines]
    for answer in comparison.answers[:answers]:
        lines += ["", f"**Prompt:** {_cell(answer.prompt)}", ""]
        if answer.reference is not None:
            lines.append(f"- reference: {_cell(answer.reference)}")
        for subject, text in zip(comparison.subjects, answer.texts, strict=True):
            lines.append(f"- {subject.letter}: {'—' if text is None else _cell(text)}")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text of unknown origin inside Markdown: on one line, nothing in it a renderer would obey."""
    flat = " ".join(text.split())
    for char in "\\`*_|<>[]#":
        flat = flat.replace(char, f"\\{char}")
    return "".join(char if char.isprintable() else "�" for char in flat)


def csv_text(comparison: Comparison) -> str:
    """One value a line: section, key, letter, asked, value, step, difference to the baseline."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["section", "key", "letter", "run", "value", "step", "difference"])
    for table in comparison.results:
        for row in table.rows:
            for subject, value, step, difference in zip(
                comparison.subjects, row.values, row.steps, row.differences, strict=True
            ):
                writer.writerow([table.moment, row.key, subject.letter, subject.asked, value, step, difference])
    for setting in comparison.settings:
        for subject, value in zip(comparison.subjects, setting.values, strict=True):
            writer.writerow(["settings", setting.key, subject.letter, subject.asked, setting_text(value), "", ""])
    for subject, cost in zip(comparison.subjects, comparison.costs, strict=True):
        for name in _COSTS:
            if (value := getattr(cost, name)) is not None:
                writer.writerow(["cost", name, subject.letter, subject.asked, value, "", ""])
    for evidence in comparison.evidence:
        pair = [comparison.subjects[i] for i in (evidence.first, evidence.second)]
        who = " - ".join(subject.letter for subject in reversed(pair))
        asked = " - ".join(subject.asked for subject in reversed(pair))
        for name in ("difference", "low", "high", "p", "examples", "needed"):
            writer.writerow(["evidence", f"{evidence.key} {name}", who, asked, getattr(evidence, name), "", ""])
    return out.getvalue()


def json_value(comparison: Comparison) -> dict[str, Any]:
    """Every field, JSON-ready; what is no finite number is null."""
    said = _plain(dataclasses.asdict(comparison))
    for table, plain_table in zip(comparison.results, said["results"], strict=True):
        for row, plain_row in zip(table.rows, plain_table["rows"], strict=True):
            plain_row |= {"differences": _plain(row.differences), "best": row.best}
    return said


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
