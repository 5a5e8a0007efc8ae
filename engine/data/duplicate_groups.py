"""Rows that belong together: near-duplicate pairs proved on the texts, and groups joined from pairs."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from engine.data.near_duplicates import alike, candidates
from engine.data.row_index import RowIndex, bare

_PROVED_AT_ONCE = 5000
"""Pairs whose texts are in memory together: 10,000 texts of 4,000 characters at the worst."""


class Pair(NamedTuple):
    row: int
    other: int
    """The earlier row."""
    share: float
    """Of the characters that are the same in the two questions."""


def near_pairs(pool: RowIndex, *, answers: bool, advance: Callable[[int, int], None] | None = None) -> Iterator[Pair]:
    """Rows whose question is nearly an earlier row's, the first row with each question standing for all of them.

    With `answers`, only rows with the same tools and system message count, and rows of the same part only where the
    answers are nearly the same, too.
    """
    rows, signed = pool.distinct()
    pairs = rows[candidates(signed, advance)]
    for start in range(0, len(pairs), _PROVED_AT_ONCE):
        batch = pairs[start : start + _PROVED_AT_ONCE]
        questions = {row: pool.bare_question(row) for row in np.unique(batch).tolist()}
        earlier, later = batch.T.tolist()
        shares = alike([questions[row] for row in earlier], [questions[row] for row in later])
        for at in np.flatnonzero(shares).tolist():
            first, other = earlier[at], later[at]
            if answers and pool.frame[first] != pool.frame[other]:
                continue
            if answers and pool.part[first] == pool.part[other] and not _same_answers(pool, first, other):
                continue
            yield Pair(other, first, float(shares[at]))


def _same_answers(pool: RowIndex, first: int, other: int) -> bool:
    if pool.thoughts[first] != pool.thoughts[other]:
        return False
    if pool.answer[first] == pool.answer[other]:
        return True
    answer, other_answer = (bare(pool.texts(row)[1]) for row in (first, other))
    return bool(alike([answer], [other_answer])[0])


def joined(count: int, pairs: Iterator[tuple[int, int]]) -> np.ndarray:
    """The group of each of `count` rows, named by its first row, when pairs (and chains of pairs) are one group."""
    first = list(range(count))

    def root(row: int) -> int:
        while first[row] != row:
            first[row] = first[first[row]]
            row = first[row]
        return row

    for left, right in pairs:
        low, high = sorted((root(left), root(right)))
        first[high] = low
    return np.array([root(row) for row in range(count)], np.int64)
