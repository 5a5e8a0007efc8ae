"""Read a data source once and tell what is wrong with it, row by row and between rows."""

import itertools
import re
import time
import unicodedata
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.messages import msg
from engine.data.check_report import CheckReport, Issue, Lengths, Progress, length_histogram, size_verdict
from engine.data.compare_rows import PARTS, between_rows
from engine.data.edge_cases import Boundaries
from engine.data.issue_types import ISSUE_TYPES
from engine.data.mojibake import find_control, find_mojibake
from engine.data.pii import find_pii
from engine.data.row_index import RowIndex
from engine.data.token_counter import TokenCounter
from engine.formats import Row, stream_data
from engine.formats.examples import DataFile, Example
from engine.formats.row_errors import Remark, excerpt
from engine.formats.split_names import TRAIN, VALIDATION
from engine.formats.train_val_split import LabelCounts, plain
from engine.formats.turn_notes import CONTROL_TOKEN, DROPPED

_LONG_MEDIAN = 40
"""Characters of the median answer from which on very short answers stand out."""
_SHORT_SHARE = 20
_BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[\s_\u2010-\u2015-]+(?=[^\W_])")
_KIND_OF_NOTE = {CONTROL_TOKEN: "control-tokens", **dict.fromkeys(DROPPED, "left-out")}


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a check found, with every row named by its position among all rows read (bad ones too), for `clean`."""

    report: CheckReport
    issues: tuple[tuple[int, Issue], ...]
    """(row's position, issue), as many as `max_finds` allows, in the order of `ISSUE_TYPES` and rows."""


def check(source: str | list[str], **options: Any) -> CheckReport:
    """What is wrong with a data source: a file, a folder, a hub dataset or a list of these.

    Options: `val` and `test` (files whose questions must not be in the data), `mapping`, `format`, `system` as
    `read_data` takes them, `model` (count tokens with its tokenizer) and `max_length`, `max_finds` (kept of each kind,
    None for all), `progress`. Raises DataError when a source cannot be read at all or its columns mean nothing.
    """
    return gather(source, **options).report


def gather(
    source: str | list[str],
    *,
    val: str | list[str] | None = None,
    test: str | list[str] | None = None,
    mapping: dict[str, str] | None = None,
    format: str = "auto",
    system: str | None = None,
    model: str = "",
    max_length: int = 2048,
    max_finds: int | None = 20,
    whole: bool = False,
    progress: Progress = lambda doing, done, total: None,
) -> Gathered:
    """As `check`, with all rows that each kind was found in; with `whole` rows of every split are the data."""
    started = time.monotonic()
    reading = {"mapping": mapping, "format": format, "system": system}
    counter = TokenCounter(model, max_length) if model else None
    try:
        with RowIndex() as pool:
            checker = _Checker(pool, counter, max_finds)
            checker.read(source, reading, progress, whole)
            checker.read_others((val, test), reading, progress)
            checker.compare(progress)
            lengths = checker.lengths(max_length, progress)
            return checker.result(lengths, started)
    finally:
        if counter:
            counter.stop()


def objective_for(source: str | list[str]) -> str:
    """Documents are welcome beside conversations; in a folder, text files beside others are notes about the data."""
    return "sft" if isinstance(source, str) and Path(source).is_dir() else "pretrain"


def _as_read(label: str) -> str:
    """A label as people see it: without regard to case, Unicode form, spacing and what cannot be seen."""
    seen = "".join(char for char in plain(label) if unicodedata.category(char) != "Cf")
    return _BETWEEN_WORDS.sub(" ", seen)


class _Checker:
    def __init__(self, pool: RowIndex, counter: TokenCounter | None, max_finds: int | None) -> None:
        self._pool = pool
        self._counter = counter
        self._max_finds = max_finds
        self._places = _no_places()
        self._finds = _no_finds()
        self._positions = array("Q")
        """Place of each row of the pool among all rows read."""
        self._char_lengths = array("I")
        self._files: list[DataFile] = []
        self._left_out: list[str] = []
        self._roles: Counter[str] = Counter()
        self._labels = LabelCounts()
        self._label_rows: dict[str, int] = {}
        """The first row with each answer, as long as these may be labels."""
        self._boundaries = Boundaries()

    def _add_issue(
        self, kind: str, position: int, where: tuple[str, int], message: str, shown: str = "", other: int | None = None
    ) -> None:
        places = self._places[kind]
        if not places or places[-1] != position:
            places.append(position)
        finds = self._finds[kind]
        if self._max_finds is None or len(finds) < self._max_finds:
            other_where = self._pool.where(other) if other is not None else ("", 0)
            finds.append(
                (position, Issue(kind, *where, message, excerpt(shown.strip()) if shown else "", *other_where))
            )

    # One row at a time

    def read(self, source: str | list[str], reading: dict, progress: Progress, whole: bool = False) -> None:
        """The rows of the training split, or of data without splits; with `whole` those of every split."""

        def advance(done: int, total: int) -> None:
            progress("reading", done, total)

        position = 0
        other_splits: Counter[str] = Counter()
        options = {**reading, "objective": objective_for(source), "use": "all"}
        for item in stream_data(source, **options, progress=advance):
            if isinstance(item, DataFile):
                self._files.append(item)
            elif isinstance(item, Remark):
                self._left_out.append(item.message)
            elif isinstance(item, Row):
                if whole or item.part in ("", TRAIN) or item.example is None:
                    position += self._row(item, position)
                else:
                    other_splits[item.part] += 1
        if other_splits and not self._positions:
            # Nothing but a test set: then that is the data. Its bad rows have been told already.
            self._files, self._left_out, self._places, self._finds = [], [], _no_places(), _no_finds()
            self.read(source, reading, progress, whole=True)
            return
        if other_splits:
            for item in stream_data(source, **options, progress=advance):
                if isinstance(item, Row) and item.example is not None and item.part not in ("", TRAIN):
                    self._pool.add(item.example, 1 if item.part == VALIDATION else 2)
            self._left_out += [
                msg(
                    "{count:,} rows of the split '{part}' are compared with the training rows, "
                    "and not looked at otherwise",
                    count=count,
                    part=part,
                )
                for part, count in other_splits.items()
            ]

    def _row(self, row: Row, position: int) -> bool:
        """Whether it counts as a row: a broken line of a document is reported, but is none."""
        where = row.file, row.line
        if row.example is None:
            kind = "left-out" if row.is_line_note else "unreadable"
            if problem := row.problem:
                self._add_issue(kind, position, where, f"{problem.message} [{problem.code}]", problem.excerpt)
            return not row.is_line_note
        if row.problem:
            self._add_issue("left-out", position, where, row.problem.message)
        example = row.example
        self._pool.add(example)
        self._positions.append(position)
        if self._counter:
            self._counter.add(example)
        self._count(example)
        text = _all_text(example)
        self._char_lengths.append(min(len(text), 2**32 - 1))
        for match in find_pii(text):
            self._add_issue(match.kind, position, where, f"{match.what} {match.shown}")
        damage = find_mojibake(text)
        if damage:
            self._add_issue("encoding", position, where, damage[0], _around(text, damage[1]))
        # Text decoded wrongly is full of control characters; one word for it is enough.
        control = None if damage else find_control(text)
        if control:
            self._add_issue("controls", position, where, control[0], _around(text, control[1]))
        unusual = _unusual_order(example)
        if unusual:
            self._add_issue("roles", position, where, unusual)
        return True

    def _count(self, example: Example) -> None:
        roles = [message["role"] for message in example.messages]
        self._roles.update(roles or ["text"])
        self._boundaries.add(example)
        if self._labels.add(example):
            self._label_rows.setdefault(example.messages[-1]["content"], len(self._positions) - 1)

    def read_others(self, sources: tuple, reading: dict, progress: Progress) -> None:
        """The validation and test files: only their questions matter."""
        for part, source in enumerate(sources, 1):
            if not source:
                continue

            def advance(done: int, total: int, what: str = PARTS[part]) -> None:
                progress(f"reading {what}", done, total)

            options = {**reading, "objective": objective_for(source), "use": ("", "validation", "evaluation")[part]}
            for item in stream_data(source, **options, progress=advance):
                if isinstance(item, Row) and item.example is not None:
                    self._pool.add(item.example, part)

    def compare(self, progress: Progress) -> None:
        """What is found between rows, the finds of each kind in the order of the rows."""
        pool = self._pool
        for row, kind, message, other in sorted(between_rows(pool, len(self._positions), progress)):
            shown = pool.texts(row)[0][:200] if len(self._finds[kind]) < (self._max_finds or len(pool)) else ""
            self._add_issue(kind, self._positions[row], pool.where(row), message, shown, other)

    # What was found

    def lengths(self, max_length: int, progress: Progress) -> Lengths:
        if self._counter is None:
            return _lengths("characters", np.array(self._char_lengths, np.int64))
        progress("counting tokens", 0, 1)
        tokens, left, notes = self._counter.finish()
        for index, (length, remaining) in enumerate(zip(tokens, left, strict=True)):
            position, where = self._positions[index], self._pool.where(index)
            if length < 0:
                self._add_issue("unreadable", position, where, "the model's chat template refuses this row [template]")
            elif remaining == 0:
                self._add_issue(
                    "no-answer-left",
                    position,
                    where,
                    msg("{length:,} tokens; no answer within {max_length:,}", length=length, max_length=max_length),
                )
            elif length > max_length:
                self._add_issue("truncated", position, where, f"{length:,} tokens")
            for code, message in notes.get(index, ()):
                self._add_issue(_KIND_OF_NOTE.get(code, "unlike-inference"), position, where, f"{message} [{code}]")
        lengths = np.array(tokens, np.int64)
        return _lengths("tokens", lengths[lengths >= 0], max_length)

    def result(self, lengths: Lengths, started: float) -> Gathered:
        labels = self._labels.found()
        if labels:
            self._alike_labels(labels)
        else:
            self._short_answers()
        # What the tokenizer refused was met after the rows that could not be read.
        for kind, places in self._places.items():
            self._places[kind] = array("Q", np.unique(np.array(places, np.uint64)).tobytes())
            self._finds[kind].sort(key=lambda numbered: numbered[0])
        issues = tuple(numbered for kind in ISSUE_TYPES for numbered in self._finds[kind])
        report = CheckReport(
            files=tuple(self._files),
            rows=sum(file.rows for file in self._files),
            bad_rows=sum(file.bad_rows for file in self._files),
            roles=dict(self._roles),
            lengths=lengths,
            labels=labels,
            questions=len(set(itertools.islice(self._pool.question, len(self._positions)))),
            counts={kind: len(places) for kind, places in self._places.items() if places},
            finds=tuple(find for _, find in issues),
            verdict=size_verdict(len(self._positions), len(labels)),
            seconds=time.monotonic() - started,
            left_out=tuple(self._left_out),
            advice=self._boundaries.lacking(bool(labels)),
        )
        return Gathered(report, issues)

    def _alike_labels(self, labels: dict[str, int]) -> None:
        """Labels that people read as one, told at the first row of each but the most frequent."""
        first: dict[str, str] = {}
        for label, count in labels.items():
            other = first.setdefault(_as_read(label), label)
            if other != label:
                row = self._label_rows[label]
                message = msg(
                    "'{label}' ({count:,} rows) and '{other}' ({labels:,} rows), which is first at",
                    label=label,
                    count=count,
                    other=other,
                    labels=labels[other],
                )
                other_row = self._label_rows[other]
                self._add_issue("labels", self._positions[row], self._pool.where(row), message, ascii(label), other_row)

    def _short_answers(self) -> None:
        chars = np.array(self._pool.answer_chars[: len(self._positions)], np.int64)
        if not len(chars) or "assistant" not in self._roles:
            return
        median = int(np.median(chars))
        if median < _LONG_MEDIAN:
            return
        for row in np.flatnonzero((chars > 0) & (chars < max(3, median // _SHORT_SHARE))).tolist():
            message = msg(
                "an answer of {chars:,} characters, where half of them have {median:,} or more",
                chars=chars[row],
                median=median,
            )
            self._add_issue(
                "short-answers", self._positions[row], self._pool.where(row), message, self._pool.texts(row)[1]
            )


def _no_places() -> dict[str, array]:
    return {kind: array("Q") for kind in ISSUE_TYPES}


def _no_finds() -> dict[str, list[tuple[int, Issue]]]:
    return {kind: [] for kind in ISSUE_TYPES}


def _all_text(example: Example) -> str:
    """Every text a model would see of the example."""
    if example.text is not None:
        return example.text
    parts = []
    for message in example.messages:
        parts.append(message.get("content") or "")
        if len(message) > 2:
            parts.append(message.get("reasoning_content") or "")
            parts += [str(call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return "\n".join(parts)


def _around(text: str, at: int) -> str:
    return text[max(0, at - 30) : at + 60]


def _unusual_order(example: Example) -> str:
    """What trains, but is hardly meant: two messages of one role in a row, an assistant that begins."""
    roles = [message["role"] for message in example.messages if message["role"] != "system"]
    if roles[:1] == ["assistant"]:
        return "the assistant speaks first"
    for role, following in itertools.pairwise(roles):
        if role == following and role != "tool":
            return msg("two {role} messages in a row", role=role)
    return ""


def _lengths(unit: str, lengths: np.ndarray, max_length: int = 0) -> Lengths:
    if not len(lengths):
        return Lengths(unit, max_length=max_length)
    return Lengths(
        unit,
        total=int(lengths.sum()),
        shortest=int(lengths.min()),
        median=int(np.median(lengths)),
        longest=int(lengths.max()),
        histogram=length_histogram(lengths),
        max_length=max_length,
        cut_tokens=int((lengths - max_length).clip(0).sum()) if max_length else 0,
    )
