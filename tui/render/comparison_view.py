"""A comparison as lines of the screen: results, settings, answers. Pure; its sections are `engine.present`'s."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.messages import msg
from engine.compare.comparison_records import Answers, Comparison, SettingRow, Subject
from engine.metrics.names import metric_name
from engine.present import numbers
from engine.present.comparison_sections import SETTINGS, Row, sections
from engine.present.text import fit, one_line, wrap
from tui.render.line import Line, fit_line
from tui.render.text_diff import marked, wrapped

_LABEL = 26
_VALUE = 11
_SETTING = 34
"""The longest name of a setting, and the spaces around it."""
_LEAST_COLUMN = 22
"""Answers in narrower columns than this stand below each other instead."""
# results


def result_lines(comparison: Comparison, width: int) -> list[Line]:
    """Every section but the settings, which have a pane of their own: tables, and sentences about them."""
    lines: list[Line] = []
    for section in sections(comparison):
        if section.title == SETTINGS:
            continue
        lines.append([(f" {one_line(section.title)}", "dim")])
        for row in section.rows:
            lines += _row_lines(row, width)
        lines += _sentences(section.lines, width)
    return lines


def result_head(comparison: Comparison, width: int) -> list[Line]:
    """The letters above the columns of values."""
    line: Line = [(" " * _label_width(len(comparison.subjects), width), "text")]
    value = _value_width(len(comparison.subjects), width)
    for index, subject in enumerate(comparison.subjects):
        # The last cell is that of the star beside a value: it keeps the heads apart.
        line.append((fit(f"{subject.letter} {one_line(subject.asked)}", value - 1, ">") + " ", f"series{index % 4}"))
    if _beside(len(comparison.subjects), width):
        for subject in comparison.subjects[1:]:
            line.append((fit(f"{subject.letter} − {comparison.subjects[0].letter}", _VALUE, ">"), "dim"))
    return [line]


def _label_width(count: int, width: int) -> int:
    return min(_LABEL, max(width - count * _VALUE, 14))


def _value_width(count: int, width: int) -> int:
    return max(min(_VALUE, (width - _label_width(count, width)) // max(count, 1)), 6)


def _beside(count: int, width: int) -> bool:
    """Whether differences fit into columns of their own; else they stand below the values."""
    return _LABEL + count * _VALUE + (count - 1) * _VALUE + 2 <= width


def _row_lines(row: Row, width: int) -> list[Line]:
    count = len(row.values)
    label_width, value_width = _label_width(count, width), _value_width(count, width)
    role = "dim" if row.name.startswith(" ") else "text"
    line: Line = [(fit(f"  {one_line(row.name)} {row.arrow}", label_width - 1) + " ", role)]
    for index, value in enumerate(row.values):
        sign, value_role = ("★", "bright") if index == row.best else (" ", role)
        line.append((fit(f"{value}{sign}", value_width, ">"), value_role))
    if not any(row.differences):
        return [line]
    verdicts = [_VERDICTS[better] for better in row.better or [None] * count]
    if _beside(count, width):
        line += [(fit(text, _VALUE, ">"), verdicts[index]) for index, text in enumerate(row.differences) if index]
        return [line]
    below: Line = [(" " * label_width, "text")]
    below += [(fit(f"{text} ", value_width, ">"), verdicts[index]) for index, text in enumerate(row.differences)]
    return [line, below]


_VERDICTS = {True: "done", False: "failed", None: "dim"}
"""A difference for the better, for the worse, or neither, as a role."""


def _sentences(sentences: Sequence[str], width: int) -> list[Line]:
    lines: list[Line] = []
    for sentence in sentences:
        for index, text in enumerate(wrap(sentence, max(width - 4, 10))):
            lines.append([("  · " if not index else "    ", "dim"), (text, "text")])
    return lines


# settings


def setting_lines(rows: Sequence[SettingRow], subjects: Sequence[Subject], width: int, same: int) -> list[Line]:
    """One line for each setting; values that differ from the first subject's stand out."""
    label, value = _setting_widths(subjects, width)
    lines: list[Line] = []
    for row in rows:
        first = json.dumps(row.values[0], sort_keys=True, default=str)
        line: Line = [(f" {fit(one_line(row.key), label - 1)}", "text")]
        for each in row.values:
            other = json.dumps(each, sort_keys=True, default=str) != first
            line.append((f" {fit(_setting(each), value - 1)}", "bright" if other else "text"))
        lines.append(line)
    if not rows:
        lines.append([(msg(" no setting differs; all {same} are the same · a shows them", same=same), "dim")])
    elif same:
        lines += [[], [(msg(" {same} more settings are the same · a shows all", same=same), "dim")]]
    return lines


def _setting_widths(subjects: Sequence[Subject], width: int) -> tuple[int, int]:
    """Of the setting's name, and of each value."""
    label = min(_SETTING, max(width * 2 // 5, 12))
    return label, max((width - label - 1) // max(len(subjects), 1), 6)


def setting_head(subjects: Sequence[Subject], width: int) -> list[Line]:
    label, value = _setting_widths(subjects, width)
    line: Line = [(" " * label, "text")]
    for index, subject in enumerate(subjects):
        line.append((f" {fit(f'{subject.letter} {one_line(subject.asked)}', value - 1)}", f"series{index % 4}"))
    return [line]


def _setting(value: Any) -> str:
    """Of paths in a list their ends, which tell them apart."""
    if isinstance(value, list):
        return numbers.setting_text([str(item).rpartition("/")[2] or str(item) for item in value])
    return numbers.setting_text(value)


# answers


WHICH_ANSWERS = ("", "that differ", "where A scores better")
"""Which prompts are shown: all of them, and two choices of them."""


def chosen_answers(answers: Sequence[Answers], which: str) -> tuple[Answers, ...]:
    """Those of the prompts that are asked for, one of `WHICH_ANSWERS`."""
    if which == WHICH_ANSWERS[1]:
        return tuple(entry for entry in answers if len(set(entry.texts)) > 1)
    if which == WHICH_ANSWERS[2]:
        return tuple(entry for entry in answers if entry.scores and _first_is_better(entry.scores))
    return tuple(answers)


def _first_is_better(scores: Sequence[Mapping[str, float]]) -> bool:
    """Whether the first subject scored more than another, by the first metric that both have."""
    first = scores[0]
    for second in scores[1:]:
        metric = next((metric for metric in first if metric in second), None)
        if metric is not None and first[metric] > second[metric]:
            return True
    return False


def answer_lines(answers: Sequence[Answers], subjects: Sequence[Subject], width: int) -> tuple[list[Line], list[int]]:
    """Every prompt with its reference and the answers in columns, what differs marked; and where each prompt begins."""
    lines: list[Line] = []
    begins: list[int] = []
    for number, each in enumerate(answers, 1):
        begins.append(len(lines))
        lines += _prompt(each, number, len(answers), width)
        columns = _columns(each, subjects)
        share = (width - len(columns) + 1) // max(len(columns), 1)
        if share >= _LEAST_COLUMN:
            lines += _side_by_side(columns, share, width)
        else:
            for head, pieces in columns:
                lines.append([(" ", "text"), *head])
                lines += [[("  ", "text"), *line] for line in wrapped(pieces, max(width - 3, 4))]
        lines.append([])
    return lines, begins


def _prompt(answers: Answers, number: int, of: int, width: int) -> list[Line]:
    lines: list[Line] = []
    for index, text in enumerate(wrap(answers.prompt, max(width - 10, 10))[:6]):
        head = fit(f" {number}/{of}", 8) if not index else " " * 8
        lines.append([(head, "dim"), (text, "title")])
    return lines


def _columns(answers: Answers, subjects: Sequence[Subject]) -> list[tuple[Line, list[tuple[str, bool]]]]:
    """Head and pieces of each column: the reference first, where there is one."""
    columns: list[tuple[Line, list[tuple[str, bool]]]] = []
    if answers.reference is not None:
        columns.append(([("reference", "dim")], [(answers.reference, False)]))
    for index, (subject, pieces) in enumerate(zip(subjects, marked(answers.texts), strict=True)):
        head: Line = [(f"{subject.letter} {one_line(subject.asked)}", f"series{index % 4}")]
        for name, score in answers.scores[index].items() if answers.scores else ():
            head.append((f" {metric_name(name)} {score:g}", "dim"))
        if answers.steps[index] is not None:  # last: where the column is narrow, this is what may be cut
            head.append((f" step {numbers.count(answers.steps[index])}", "dim"))
        columns.append((head, pieces if pieces is not None else [("no answer", False)]))
    return columns


def _side_by_side(columns: Sequence[tuple[Line, list[tuple[str, bool]]]], share: int, width: int) -> list[Line]:
    texts = [[list(head), *wrapped(pieces, share - 1)] for head, pieces in columns]
    lines: list[Line] = []
    for row in range(max(map(len, texts))):
        line: Line = []
        for index, column in enumerate(texts):
            if index:
                line.append(("│", "frame"))
            line += fit_line([(" ", "text"), *(column[row] if row < len(column) else [])], share)
        lines.append(fit_line(line, width))
    return lines
