"""Numbers beside answers that say how good these are: nothing is learnt from them, and bad answers are trained as well.

Verdicts of yes and no are `preference`'s, which refuses the bad. Where a rating stops being good only its owner knows,
so the owner is told how many answers have a low one.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from engine.base.messages import msg
from engine.formats.columns import normalise
from engine.formats.preference import worse_columns
from engine.formats.row_errors import excerpt

_WORDS = {
    "rating", "ratings", "rate", "rated", "score", "scores", "scoring", "reward", "rewards", "star", "stars", "grade",
    "grades", "quality", "helpfulness", "honesty", "truthfulness", "correctness", "coherence", "harmlessness",
    "instruction_following", "评分", "得分", "分数", "打分", "质量",
}  # fmt: skip
_MOST = 20
"""Columns of which the numbers are kept, eight bytes each."""


class Ratings:
    """What the rows of one file hold of them."""

    def __init__(self) -> None:
        self._values: dict[str, array] = {}

    def add(self, row: dict, columns: Sequence[str]) -> None:
        """Keep the numbers in the rating columns of a row that is read."""
        for column in columns:
            for name, value in _numbers(column, row.get(column)):
                if name in self._values or len(self._values) < _MOST:
                    self._values.setdefault(name, array("d")).append(value)

    def lines(self) -> list[str]:
        """What to say of those that differ from answer to answer."""
        return [_line(name, values) for name, values in self._values.items() if min(values) < max(values)]


def is_rating(column: str) -> bool:
    """`score`, `avg_rating`, `score_chosen`, but not the score of a worse answer."""
    name = normalise(column)
    words = {name, *re.split(r"[\W_]+", name)}
    return bool(words & _WORDS) and not worse_columns([column])


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(inner, dict):
                yield from _numbers(f"{name}.{key}", inner)
        return
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:  # NaN is not
        yield name, float(value)


def _line(name: str, values: array) -> str:
    low, high = min(values), max(values)
    middle = (low + high) / 2
    low_rows = sum(value <= middle for value in values)
    return msg(
        "'{name}' looks like a rating ({low:.6g} to {high:.6g}): all answers count alike, also "
        "those of the {low_rows:,} of {rows:,} rows with {middle:.6g} or less; take out what is not good enough",
        name=excerpt(name),
        low=low,
        high=high,
        low_rows=low_rows,
        rows=len(values),
        middle=middle,
    )
