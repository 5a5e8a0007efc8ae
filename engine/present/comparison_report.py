"""A comparison as the terminal prints it, and as Markdown, CSV and JSON, from the same sections."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.compare.comparison_records import Answers, Comparison
from engine.present.comparison_sections import COSTS, Row, Section, sections, subject_text
from engine.present.numbers import setting_text
from engine.present.text import cells, cut, fit, one_line, wrap

WIDTH = 80
_COLUMNS_AT_ONCE = 4
_ANSWER_LINES = 4
_MARKDOWN = "\\`*_|<>[]#"
"""What Markdown would read as markup."""

# the terminal


def lines(comparison: Comparison, width: int = WIDTH) -> list[str]:
    """What is printed, each line at most `width` cells."""
    printed = []
    name_width = min(max(cells(one_line(subject.asked)) for subject in comparison.subjects), 30)
    for subject in comparison.subjects:
        name = fit(one_line(subject.asked), name_width)
        printed.append(cut(f"{subject.letter}  {name}  {one_line(subject_text(subject))}", width).rstrip())
    letters = [subject.letter for subject in comparison.subjects]
    for section in sections(comparison):
        printed.append("")
        printed += _table(section, letters, width) if section.rows else [one_line(section.title)]
        for sentence in section.lines:
            printed += wrap(one_line(sentence), width, "  ", "    ")
    if comparison.answers:
        printed += ["", "answers"]
        for answer in comparison.answers:
            printed += _answer(answer, letters, width)
    return printed


def _grid(section: Section, letters: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """The columns' titles, and each row as its name and cells.

    The difference is a column beside two subjects, and a row below more of them.
    """
    beside = len(letters) == 2 and any(row.differences for row in section.rows)
    rows = []
    for row in section.rows:
        values = [f"{value}{'*' if index == row.best else ''}" for index, value in enumerate(row.values)]
        rows.append((row.name, *values, *([row.differences[1] if row.differences else ""] if beside else ())))
        if not beside and row.arrow and row.differences:
            rows.append((f"  against {letters[0]}", *row.differences))
    return [*letters, *([f"{letters[1]} - {letters[0]}"] if beside else ())], rows


def _table(section: Section, letters: Sequence[str], width: int) -> list[str]:
    """The section's table, in blocks of four columns where there are more."""
    printed = []
    titles, rows = _grid(section, letters)
    names = [one_line(row[0]) for row in rows]
    for start in range(0, len(titles), _COLUMNS_AT_ONCE):
        block = slice(1 + start, 1 + start + _COLUMNS_AT_ONCE)
        head = titles[start : start + _COLUMNS_AT_ONCE]
        grid = [[one_line(cell) for cell in row[block]] for row in rows]
        name_width = min(max(map(cells, [*names, ""])) + 2, width // 2)
        room = (width - name_width) // max(1, len(head)) - 2
        widths = [
            min(max(cells(head[column]), *(cells(row[column]) for row in grid), 8), room) for column in range(len(head))
        ]
        title = one_line(section.title) if not start else ""
        left = width - sum(widths) - 2 * len(widths)
        if cells(title) > name_width:  # a long title does not fit above the names: it stands on a line of its own
            name_width = min(max(name_width, cells(title)), left)
        if cells(title) > name_width:
            printed.append(cut(title, width))
            title = ""
        printed.append(_line(title, head, name_width, widths))
        printed += [_line(f"  {name}", row, name_width, widths) for name, row in zip(names, grid, strict=True)]
    return printed


def _line(name: str, row: Sequence[str], name_width: int, widths: Sequence[int]) -> str:
    columns = (f"  {fit(cell, width, '>')}" for cell, width in zip(row, widths, strict=True))
    return (fit(name, name_width) + "".join(columns)).rstrip()


def _answer(answer: Answers, letters: Sequence[str], width: int) -> list[str]:
    printed = _paragraph("  > ", answer.prompt, width)
    if answer.reference is not None:
        printed += _paragraph("    reference: ", answer.reference, width)
    for letter, text in zip(letters, answer.texts, strict=True):
        printed += _paragraph(f"    {letter}: ", "—" if text is None else text or "(nothing)", width)
    return printed


def _paragraph(head: str, text: str, width: int) -> list[str]:
    """Text of unknown origin, wrapped and cut to a few lines."""
    rows = wrap(" ".join(text.split()), width, head, " " * len(head))
    if len(rows) > _ANSWER_LINES:
        rows = [*rows[: _ANSWER_LINES - 1], cut(rows[_ANSWER_LINES - 1] + " " * width, width)]
    return rows


# Markdown, CSV, JSON


def markdown(comparison: Comparison, answers: int | None = None) -> str:
    """For a pull request or a notebook, with so many answers, or all; ends in a newline."""
    letters = [subject.letter for subject in comparison.subjects]
    page = ["| | run | |", "|---|---|---|"]
    page += [f"| {s.letter} | {_cell(s.asked)} | {_cell(subject_text(s))} |" for s in comparison.subjects]
    for section in sections(comparison):
        page += ["", f"**{_cell(section.title[:1].upper() + section.title[1:])}**", ""]
        if section.rows:
            page += _markdown_table(section, letters)
        page += [f"- {_cell(sentence)}" for sentence in section.lines]
    for answer in comparison.answers[:answers]:
        page += ["", f"**Prompt:** {_cell(answer.prompt)}", ""]
        if answer.reference is not None:
            page.append(f"- reference: {_cell(answer.reference)}")
        for letter, text in zip(letters, answer.texts, strict=True):
            page.append(f"- {letter}: {'—' if text is None else _cell(text)}")
    return "\n".join(page) + "\n"


def _markdown_table(section: Section, letters: Sequence[str]) -> list[str]:
    differ = any(any(row.differences) for row in section.rows)
    titles = [*letters, *(f"{letter} {'−'} {letters[0]}" for letter in letters[1:] if differ)]
    page = ["| | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for row in section.rows:
        page.append("| " + " | ".join(_markdown_row(row, differ)) + " |")
    return page


def _markdown_row(row: Row, differ: bool) -> list[str]:
    values = [f"**{_cell(value)}**" if index == row.best else _cell(value) for index, value in enumerate(row.values)]
    differences = (row.differences or ("",) * len(row.values))[1:] if differ else ()
    return [f"{_cell(row.name)} {row.arrow}".rstrip(), *values, *map(_cell, differences)]


def _cell(text: str) -> str:
    """Text of unknown origin inside Markdown: on one line, nothing in it a renderer would obey."""
    flat = " ".join(text.split())
    for char in _MARKDOWN:
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
        for name in COSTS:
            if (value := getattr(cost, name)) is not None:
                writer.writerow(["cost", name, subject.letter, subject.asked, value, "", ""])
    for evidence in comparison.evidence:
        pair = [comparison.subjects[i] for i in (evidence.first, evidence.second)]
        pair_letters = " - ".join(subject.letter for subject in reversed(pair))
        pair_names = " - ".join(subject.asked for subject in reversed(pair))
        for name in ("difference", "low", "high", "p", "examples", "needed"):
            writer.writerow(
                ["evidence", f"{evidence.key} {name}", pair_letters, pair_names, getattr(evidence, name), "", ""]
            )
    return out.getvalue()


def json_value(comparison: Comparison) -> dict[str, Any]:
    """Every field, JSON-ready; what is no finite number is null."""
    fields = _json_ready(dataclasses.asdict(comparison))
    for table, json_table in zip(comparison.results, fields["results"], strict=True):
        for row, json_row in zip(table.rows, json_table["rows"], strict=True):
            json_row |= {"differences": _json_ready(row.differences), "best": row.best}
    return fields


def _json_ready(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_ready(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
