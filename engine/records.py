"""Frozen values that cross walls between parts. No behaviour, no imports from the engine."""

from dataclasses import dataclass, field


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
    bad_rows: int = 0


@dataclass(frozen=True, slots=True)
class DataReport:
    """The outcome of reading one data source: good examples, and every problem, counted by code."""

    files: tuple[DataFile, ...]
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...]
    """The first problems, in file order, up to a limit; `problem_counts` counts them all."""
    problem_counts: dict[str, int]
    thoughts_dropped: int = 0
    """Examples that had a thought before it was taken out."""

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bad_rows(self) -> int:
        return sum(file.bad_rows for file in self.files)
