"""A comparison as lines: results, settings, answers; and as Markdown. Pure; what is compared is `engine.compare`'s."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from engine.base.messages import msg
from engine.compare.comparison_records import Answers, Comparison, Cost, ResultRow, ResultTable, SettingRow, Subject
from engine.present import numbers
from engine.present.text import fit, one_line, wrap
from tui.render.line import Line, fit_line
from tui.render.text_diff import marked, wrapped

_LABEL = 22
_VALUE = 10
_SETTING = 34
"""The longest name of a setting, and the spaces around it."""
_LEAST_COLUMN = 22
"""Answers in narrower columns than this stand below each other instead."""
_TITLES = {
    "eval/loss": "eval loss",
    "eval/perplexity": "perplexity",
    "train/loss": "train loss, recent",
    "train/tokens": "tokens seen",
}


def title_of(key: str) -> str:
    metric, at, source = key.partition("@")
    return one_line(_TITLES.get(metric, metric.removeprefix("eval/").replace("_", " ")) + at + source)


# results


def result_lines(comparison: Comparison, width: int) -> list[Line]:
    """Every table of results, then cost, then what the curves show and how sure the differences are."""
    lines: list[Line] = []
    for table in comparison.results:
        lines += [[(f" {one_line(table.title)}", "dim")]]
        for row in table.rows:
            lines += _result_row(row, width, steps=table.moment == "best")
    lines += [[(" cost", "dim")], *_cost_lines(comparison, width)]
    for heading, sentences in (
        ("how sure", [evidence.sentence for evidence in comparison.evidence]),
        ("seeds", [group.sentence for group in comparison.groups]),
        ("what the curves show", _diagnoses(comparison)),
        ("to keep in mind", [*comparison.warnings, *comparison.notes]),
    ):
        if sentences:
            lines.append([(f" {heading}", "dim")])
            lines += _sentences(sentences, width)
    return lines


def result_head(comparison: Comparison, width: int) -> list[Line]:
    """The letters above the columns of values."""
    line: Line = [(" " * _label_width(len(comparison.subjects), width), "text")]
    value = _value_width(len(comparison.subjects), width)
    for index, subject in enumerate(comparison.subjects):
        line.append((fit(f"{subject.letter} {one_line(subject.asked)}", value, ">"), f"series{index % 4}"))
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


def _result_row(row: ResultRow, width: int, steps: bool) -> list[Line]:
    arrow = {True: " ▼", False: " ▲", None: ""}[row.lower_is_better]
    values = [_number(value, row.key) for value in row.values]
    differences = ["" if difference is None else _signed(difference, row.key) for difference in row.differences]
    lines = _row(f"{title_of(row.key)}{arrow}", values, differences, row.best, width, _verdicts(row))
    if steps and any(step is not None for step in row.steps) and row.lower_is_better is not None:
        at = ["·" if step is None else numbers.count(step) for step in row.steps]
        lines += _row("  at step", at, [""] * len(at), None, width, role="dim")
    return lines


def _verdicts(row: ResultRow) -> list[str]:
    """What a difference is, as a role: good, bad, or neither."""
    found = []
    for difference in row.differences:
        if not difference or row.lower_is_better is None:
            found.append("dim")
        else:
            found.append("done" if (difference < 0) == row.lower_is_better else "failed")
    return found


def _row(
    label: str,
    values: Sequence[str],
    differences: Sequence[str],
    best: int | None,
    width: int,
    verdicts: Sequence[str] | None = None,
    role: str = "text",
) -> list[Line]:
    count = len(values)
    label_width, value_width = _label_width(count, width), _value_width(count, width)
    verdicts = verdicts or ["dim"] * count
    line: Line = [(fit(f"  {label}", label_width), role)]
    for index, value in enumerate(values):
        line.append(
            (fit(f"{value}{'★' if index == best else ' '}", value_width, ">"), "bright" if index == best else role)
        )
    if not any(differences):
        return [line]
    if _beside(count, width):
        line += [(fit(text, _VALUE, ">"), verdicts[index]) for index, text in enumerate(differences) if index]
        return [line]
    below: Line = [(" " * label_width, "text")]
    below += [(fit(f"{text} ", value_width, ">"), verdicts[index]) for index, text in enumerate(differences)]
    return [line, below]


def _number(value: float | None, key: str) -> str:
    if key == "train/tokens":
        return numbers.short(value)
    return numbers.short_metric(value)


def _signed(difference: float, key: str) -> str:
    """With its sign, and a real minus."""
    text = _number(abs(difference), key)
    return f"{'−' if difference < 0 else '+'}{text}"


_COSTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("tokens seen", "tokens", numbers.short),
    ("tokens per second", "tokens_per_second", numbers.short),
    ("peak memory", "peak_memory_bytes", numbers.size),
    ("wall time", "seconds", numbers.short_duration),
    ("GPU hours", "gpu_hours", lambda value: "·" if value is None else f"{value:.2f}"),
    ("energy", "energy_wh", lambda value: "·" if value is None else f"{numbers.short(value)}Wh"),
    ("checkpoint size", "checkpoint_bytes", numbers.size),
)


def _cost_lines(comparison: Comparison, width: int) -> list[Line]:
    lines: list[Line] = []
    for label, name, write in _COSTS:
        values = [getattr(cost, name) for cost in comparison.costs]
        if all(value is None for value in values):
            continue
        first = values[0]
        differences = [""] + [
            "" if first in (None, 0) or value is None else _percent(value / first - 1) for value in values[1:]
        ]
        lines += _row(label, [write(value) for value in values], differences, None, width)
    return lines or [[("  nothing measured yet", "dim")]]


def _percent(share: float) -> str:
    rounded = round(share * 100)
    if rounded >= 1000:
        return f"×{numbers.short(share + 1)}"
    return "=" if rounded == 0 else f"{'−' if rounded < 0 else '+'}{abs(rounded)}%"


def _diagnoses(comparison: Comparison) -> list[str]:
    return [
        f"{subject.letter} {diagnosis.finding}: {diagnosis.reason.rstrip('.')}. {diagnosis.advice}".strip()
        for subject, found in zip(comparison.subjects, comparison.diagnoses, strict=True)
        for diagnosis in found
    ]


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
        lines.append([(" no setting differs", "dim")])
    if same:
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


def _prompt(each: Answers, number: int, of: int, width: int) -> list[Line]:
    lines: list[Line] = []
    for index, text in enumerate(wrap(each.prompt, max(width - 10, 10))[:6]):
        head = fit(f" {number}/{of}", 8) if not index else " " * 8
        lines.append([(head, "dim"), (text, "title")])
    return lines


def _columns(each: Answers, subjects: Sequence[Subject]) -> list[tuple[Line, list[tuple[str, bool]]]]:
    """Head and pieces of each column: the reference first, where there is one."""
    found: list[tuple[Line, list[tuple[str, bool]]]] = []
    if each.reference is not None:
        found.append(([("reference", "dim")], [(each.reference, False)]))
    for index, (subject, pieces) in enumerate(zip(subjects, marked(each.texts), strict=True)):
        head: Line = [(f"{subject.letter} {one_line(subject.asked)}", f"series{index % 4}")]
        for name, score in each.scores[index].items() if each.scores else ():
            head.append((f" {title_of(name)} {score:g}", "dim"))
        if each.steps[index] is not None:  # last: where the column is narrow, this is what may be cut
            head.append((f" step {numbers.count(each.steps[index])}", "dim"))
        found.append((head, pieces if pieces is not None else [("no answer", False)]))
    return found


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


# Markdown


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown tables, for a report or a pull request."""
    letters = [f"{subject.letter} {_cell(subject.asked)}" for subject in comparison.subjects]
    out = [
        msg(
            "# Comparison of {subjects}", subjects=" and ".join(_cell(subject.asked) for subject in comparison.subjects)
        ),
        "",
    ]
    for subject in comparison.subjects:
        state = f" ({subject.state})" if subject.state else ""
        out.append(f"* **{subject.letter}** {_cell(subject.asked)} {_cell(subject.title)}{state}")
    for warning in (*comparison.warnings, *comparison.notes):
        out += ["", f"> {_cell(warning)}"]
    for table in comparison.results:
        out += ["", f"## Results {_cell(table.title)}", "", *_result_table(table, letters)]
    out += ["", "## Cost", "", *_table(["", *letters], _cost_cells(comparison.costs))]
    if comparison.evidence or comparison.groups:
        out += ["", "## How sure", ""]
        out += [f"* {_cell(one.sentence)}" for one in (*comparison.evidence, *comparison.groups)]
    if found := _diagnoses(comparison):
        out += ["", "## What the curves show", "", *(f"* {_cell(sentence)}" for sentence in found)]
    if comparison.settings:
        rows = [[row.key, *(_cell(_setting(value)) for value in row.values)] for row in comparison.settings]
        out += ["", "## Settings that differ", "", *_table(["", *letters], rows, numbers=False)]
    if comparison.answers:
        out += ["", "## Answers"]
    for each in comparison.answers:
        rows = [["reference", _cell(each.reference)]] if each.reference is not None else []
        rows += [
            [letter, "·" if text is None else _cell(text)] for letter, text in zip(letters, each.texts, strict=True)
        ]
        out += ["", f"**{_cell(each.prompt)}**", "", *_table(["", "answer"], rows, numbers=False)]
    return "\n".join(out) + "\n"


def _result_table(table: ResultTable, letters: Sequence[str]) -> list[str]:
    heads = ["", *letters, *(f"{letter[0]} − {letters[0][0]}" for letter in letters[1:])]
    rows = []
    for row in table.rows:
        values = [
            f"**{_number(v, row.key)}**" if i == row.best else _number(v, row.key) for i, v in enumerate(row.values)
        ]
        differences = ["" if one is None else _signed(one, row.key) for one in row.differences[1:]]
        arrow = {True: " ▼", False: " ▲", None: ""}[row.lower_is_better]
        rows.append([f"{title_of(row.key)}{arrow}", *values, *differences])
    return _table(heads, rows)


def _cost_cells(costs: Sequence[Cost]) -> list[list[str]]:
    return [
        [label, *(write(getattr(cost, name)) for cost in costs)]
        for label, name, write in _COSTS
        if any(getattr(cost, name) is not None for cost in costs)
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> list[str]:
    lines = [head, ["---"] + ["---:" if numbers else "---"] * (len(head) - 1), *rows]
    return [f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines]


def _cell(text: str) -> str:
    """Text that stays in its cell and is not read as markup."""
    shown = "<br>".join(one_line(part) for part in text.split("\n"))
    for char in "\\|*_`[]":
        shown = shown.replace(char, f"\\{char}")
    return shown.replace("<", "&lt;").replace("&lt;br>", "<br>")
