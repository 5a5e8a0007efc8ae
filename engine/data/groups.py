"""Rows that belong together: near-duplicate pairs proved on the texts, and groups joined from pairs."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from engine.data.near import alike, candidates
from engine.data.pool import Pool, bare


class Pair(NamedTuple):
    row: int
    other: int
    """The earlier row."""
    share: float
    """Of the characters that are the same in the two questions."""


def near_pairs(pool: Pool, *, answers: bool, advance: Callable[[int, int], None] | None = None) -> Iterator[Pair]:
    """Rows whose question is nearly an earlier row's, the first row with each question standing for all of them.

    With `answers`, rows of the same part count only where the answers are nearly the same, too.
    """
    rows, signed = pool.distinct()
    cached, texts = -1, ("", "")
    for one, other in candidates(signed, advance).tolist():
        row, earlier = int(rows[other]), int(rows[one])
        if earlier != cached:
            cached, texts = earlier, tuple(map(bare, pool.texts(earlier)))
        question, answer = map(bare, pool.texts(row))
        # Questions that are all punctuation have no character to compare.
        share = alike(texts[0], question) if question and texts[0] else 0.0
        if not share:
            continue
        if answers and pool.part[row] == pool.part[earlier] and not alike(texts[1] or ".", answer or "."):
            continue
        yield Pair(row, earlier, share)


def joined(count: int, pairs: Iterator[tuple[int, int]]) -> np.ndarray:
    """The group of each of `count` rows, named by its first row, when pairs (and chains of pairs) are one group."""
    first = list(range(count))

    def root(row: int) -> int:
        while first[row] != row:
            first[row] = first[first[row]]
            row = first[row]
        return row

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return np.array([root(row) for row in range(count)], np.int64)
