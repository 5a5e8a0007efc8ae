"""What is found between the rows of a pool: the same question again, contradictions, questions of the test file."""

from collections.abc import Iterator

import numpy as np

from engine.base.messages import msg
from engine.data.check_report import Progress
from engine.data.duplicate_groups import near_pairs
from engine.data.row_index import RowIndex

PARTS = ("", "the validation file", "the test file")
_SHORT_LABEL = 64
"""Characters up to which two different answers to one question contradict each other; longer ones may both be right."""

Between = tuple[int, str, str, int]
"""(row, kind, message, the other row)"""


def between_rows(pool: RowIndex, data_rows: int, progress: Progress) -> list[Between]:
    """`data_rows`: how many rows of the pool, from the first, are the data; the others are validation and test."""
    questions = np.array(pool.question, np.uint64) ^ np.array(pool.frame, np.uint64)
    answers = np.array(pool.answer, np.uint64)
    taught = answers ^ np.array(pool.thoughts, np.uint64)
    between: list[Between] = []
    for group in pool.groups(questions):
        mine = group[group < data_rows].tolist()
        elsewhere = group[group >= data_rows]
        if mine and len(elsewhere):
            where = PARTS[pool.part[elsewhere[0]]]
            between += [
                (row, "leaks", msg("the question is also in {where},", where=where), int(elsewhere[0])) for row in mine
            ]
        between += _same_question(pool, mine, answers, taught)
    between += _nearly(pool, data_rows, progress)
    return between


def _same_question(pool: RowIndex, rows: list[int], answers: np.ndarray, taught: np.ndarray) -> Iterator[Between]:
    """Answers are compared without thoughts and weights; duplicates are the same in these as well."""
    first_with: dict[int, int] = {}
    first_teaching: dict[int, int] = {}
    for row in rows:
        first_with.setdefault(int(answers[row]), row)
        first = first_teaching.setdefault(int(taught[row]), row)
        if first != row:
            yield row, "duplicates", "the same as", first
    if len(first_with) < 2:
        return
    firsts = list(first_with.values())
    chars = pool.answer_chars
    short = all(chars[row] <= _SHORT_LABEL for row in firsts)
    kind = "contradictions" if short else "several-answers"
    for row in rows:
        other = next(first for first in firsts if answers[first] != answers[row])
        reason = ""
        if short:
            answer, other_answer = (pool.texts(which)[1].strip() for which in (row, other))
            reason = msg("answered '{answer}' here, '{other_answer}' at", answer=answer, other_answer=other_answer)
        yield row, kind, reason or "answered otherwise at", other


def _nearly(pool: RowIndex, data_rows: int, progress: Progress) -> Iterator[Between]:
    def advance(done: int, total: int) -> None:
        progress("comparing", done, total)

    reported: set[tuple[int, str]] = set()
    for row, other, share in near_pairs(pool, answers=True, advance=advance):
        # Rows of the data come before those of the other files, so the earlier row is the data's.
        kind, at, beside = ("near-duplicates", row, other) if row < data_rows else ("near-leaks", other, row)
        if other < data_rows and (at, kind) not in reported:
            reported.add((at, kind))
            what = "like" if kind == "near-duplicates" else msg("like one in {parts},", parts=PARTS[pool.part[row]])
            yield at, kind, f"{share:.0%} {what}", beside
