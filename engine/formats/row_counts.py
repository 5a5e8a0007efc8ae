"""The account of one file while its rows pass: how many are read, bad or set aside, and what of them is not learnt."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.base.escape import escape
from engine.base.messages import msg, msg_n
from engine.formats.examples import Example
from engine.formats.layouts import exam_words
from engine.formats.list_values import holds_text
from engine.formats.ratings import Ratings
from engine.formats.rows import Built
from engine.formats.split_names import VALIDATION, part_of_name

_MOST_NAMES = 50
"""Names of columns that are counted per file."""
_NUMBERS = (int, float, type(None))


@dataclass(slots=True)
class FileTally:
    """What is found out about a file while its rows pass."""

    name: str
    part: str
    """The split of all its rows, by the file's name."""
    used_splits: frozenset[str] | None
    """Splits that are used, '' for rows of none; None for all."""
    kept_part: bool
    """Rows come with the split they belong to; else they are simply the data."""
    for_training: bool
    zero_is_bad: frozenset[str] = frozenset()
    split: str = ""
    """The column that says each row's split by what it holds, whatever it is called."""
    rows: int = 0
    read: int = 0
    bad: int = 0
    aside: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    flags: dict[str, Counter[bool]] = field(default_factory=dict)
    """Columns that hold true or false and are not read, with how often each; but for 50 of them."""
    notes: list[str] = field(default_factory=list)
    ratings: Ratings = field(default_factory=Ratings)
    sections: list[tuple[str, int]] = field(default_factory=list)
    """Keys that lists of rows stand under, and how many rows came before each."""

    def note_sections(self, rows: int) -> None:
        """Say which of `rows` are trained on although others are in splits: those under keys that name none."""
        if self.part or not any(part_of_name(key) for key, _ in self.sections):
            return
        ends = [*(start for _, start in self.sections[1:]), rows]
        for (key, start), end in zip(self.sections, ends, strict=True):
            if end > start and not part_of_name(key):
                note = msg(
                    "{rows} under '{key}', which names no split, read as training rows",
                    rows=_rows(end - start),
                    key=escape(key),
                )
                self.notes.append(note)

    def described(self) -> tuple[str, ...]:
        lines = list(dict.fromkeys(self.notes))
        if self.used[VALIDATION] and self.for_training:
            lines.append(
                msg(
                    "{rows} of the split '{validation}', used for validation",
                    rows=_rows(self.used[VALIDATION]),
                    validation=VALIDATION,
                )
            )
        for part, rows in self.aside.items():
            lines.append(
                msg(
                    "{rows} of the split '{part}' set aside; {name}:{part} reads them",
                    rows=_rows(rows),
                    part=part,
                    name=self.name,
                )
            )
        for column, values in self.flags.items():
            if values[True] and values[False]:
                no = msg(
                    "'{column}' is false in {rows}, which are trained like the others",
                    column=escape(column),
                    rows=_rows(values[False]),
                )
                lines.append(msg("{no}; if it calls their answers bad, take them out", no=no))
        return (*lines, *exam_words(self.ignored), *self.ratings.lines())

    def not_learnt(self, row: dict, unused: Sequence[str], built: Built) -> tuple[str, ...]:
        """Columns and keys of a good row with text that its example does not hold; counted, as true and false are."""
        names = built.unread
        if unused:
            with_text = []
            for column in unused:  # cheapest question first: this runs for every column of every row
                value = row[column]
                if isinstance(value, _NUMBERS):
                    if value is True or value is False:
                        self._count_flag(column, value)
                elif holds_text(value) and not _is_learnt(value, built.example):
                    with_text.append(column)
            if with_text:
                names = (*names, *with_text)
        ignored = self.ignored
        for name in names:
            if name in ignored or len(ignored) < _MOST_NAMES:
                ignored[name] += 1
        return names

    def _count_flag(self, column: str, value: bool) -> None:
        if column in self.flags or len(self.flags) < _MOST_NAMES:
            self.flags.setdefault(column, Counter())[value] += 1


def _is_learnt(value: Any, example: Example) -> bool:
    """Whether one of the example's messages is this very text."""
    for message in example.messages:  # noqa: SIM110 - half the time of `any` with a generator
        if message["content"] == value:
            return True
    return False


def _rows(number: int) -> str:
    return msg_n("{n} row", "{n:,} rows", number)
