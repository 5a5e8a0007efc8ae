"""Frozen values that cross walls between parts. Hardly any behaviour, no imports from the engine."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Example:
    """One row of training data: a conversation, or plain text for continued pre-training.

    `messages` follow OpenAI's chat format: dicts with `role` (system, user, assistant, tool) and `content` (str, or
    None beside `tool_calls`), and where given `tool_calls`, `tool_call_id`, `name`, `weight` (0 or 1, assistant only).
    """

    messages: tuple[dict, ...] = ()
    text: str | None = None
    tools: tuple[dict, ...] = ()
    file: str = ""
    line: int = 0
    """1-based line in `file` where the row starts (row number for parquet and hub data)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one row of a data file."""

    file: str
    line: int
    code: str
    """Short and stable, for counting: 'bad-json', 'empty-answer', 'wrong-type', ..."""
    message: str
    """In the user's words, without the file and line."""
    excerpt: str = ""
    """The offending text, cut short, control characters made visible."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: {self.message}"
        return f"{where}\n    {self.excerpt}" if self.excerpt else where


@dataclass(frozen=True, slots=True)
class DataFile:
    """What one data file was found to be."""

    path: str
    encoding: str
    format: str
    """'openai', 'sharegpt', 'alpaca', 'prompt-completion', 'question-answer', 'classification', 'text', 'mapped'."""
    container: str
    """'jsonl', 'json', 'csv', 'tsv', 'parquet', 'txt', 'hub'."""
    columns: dict[str, str] = field(default_factory=dict)
    """Which column serves as what, such as {'prompt': 'ask', 'completion': 'answer'}."""
    sha256: str = ""
    rows: int = 0
    """Given: read_rows + bad_rows + set_aside."""
    bad_rows: int = 0
    """Refused. Where a part of a file cannot be read at all, the rows in it are estimated."""
    read_rows: int = 0
    set_aside: int = 0
    """Not used and said so: rows of a split that was not asked for."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Columns (or 'messages[].key') from which nothing is learnt -> rows that hold text in them."""
    notes: tuple[str, ...] = ()
    """What else there is to say of the file as a whole, in the user's words."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """The outcome of reading one data source: good examples, and every problem, counted by code."""

    files: tuple[DataFile, ...]
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...]
    """The first problems, in file order, up to a limit; `problem_counts` counts them all."""
    problem_counts: dict[str, int]
    """Refused rows and notes by code."""
    validation: tuple[Example, ...] = ()
    """Rows of a split of that name beside the training split."""
    left_out: tuple[str, ...] = ()
    """Files and subfolders of a folder that were not read, and why."""
    thoughts_dropped: int = 0
    """Examples that had a thought before it was taken out."""

    @property
    def rows(self) -> int:
        """Given: every one is read, refused (`bad_rows`) or told (`set_aside`)."""
        return sum(file.rows for file in self.files)

    @property
    def read_rows(self) -> int:
        return sum(file.read_rows for file in self.files)

    @property
    def set_aside(self) -> int:
        return sum(file.set_aside for file in self.files)

    @property
    def bad_rows(self) -> int:
        return sum(file.bad_rows for file in self.files)


def rows_told(reports: Sequence[DataReport], further: Sequence[Problem] = ()) -> dict[str, Any]:
    """What became of the rows of some data, JSON-ready, as in the journal's `data`; `further`: what a tokenizer and a
    chat template found wrong with them, or worth a note."""
    problems = [*(problem for report in reports for problem in report.problems), *further]
    counts = sum((Counter(report.problem_counts) for report in reports), Counter(note.code for note in further))
    return {
        "thoughts_dropped": sum(report.thoughts_dropped for report in reports),
        "files": [dataclasses.asdict(file) for report in reports for file in report.files],
        "problems": [dataclasses.asdict(problem) for problem in problems[:_MAX_PROBLEMS]],
        "problem_counts": dict(counts),
        "rows": {
            "given": sum(report.rows for report in reports),
            "read": sum(report.read_rows for report in reports),
            "refused": sum(report.bad_rows for report in reports),
            "set_aside": sum(report.set_aside for report in reports),
        },
        "left_out": [line for report in reports for line in report.left_out],
    }
