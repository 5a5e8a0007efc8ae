"""What a check found, as frozen values; JSON-ready by `dataclasses.asdict`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from engine.base.messages import msg, msg_n
from engine.data.issue_types import ISSUE_TYPES
from engine.formats.examples import DataFile

Progress = Callable[[str, int, int], None]
"""(what is being done, done, of how many)"""

FEW, GOOD, BEST = 100, 500, 2000
"""Rows: below FEW too few to learn from; from GOOD on good; from BEST on best for classification."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing found in one row."""

    kind: str
    """A key of KINDS."""
    file: str
    line: int
    message: str
    """In the user's words, without file and line. Secrets and personal numbers are masked in it."""
    excerpt: str = ""
    other_file: str = ""
    other_line: int = 0
    """The other row it is about: the first of the duplicates, the row of the test file."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Sizes of the examples: tokens when a tokenizer was given, else characters."""

    unit: str
    """'tokens' or 'characters'."""
    total: int = 0
    shortest: int = 0
    median: int = 0
    longest: int = 0
    histogram: dict[int, int] = field(default_factory=dict)
    """See `length_histogram`."""
    max_length: int = 0
    """The limit truncation was counted against; 0 when there was no tokenizer."""
    cut_tokens: int = 0


@dataclass(frozen=True, slots=True)
class CheckReport:
    files: tuple[DataFile, ...]
    rows: int
    bad_rows: int
    roles: dict[str, int]
    """Messages by role."""
    lengths: Lengths
    labels: dict[str, int]
    """Rows by label, most frequent first; empty when the data is no classification."""
    questions: int
    """Distinct questions, compared without regard to case, spacing and Unicode form."""
    counts: dict[str, int]
    """Rows by kind of issue, in the order of ISSUE_TYPES; kinds without one are absent. A row counts once in each."""
    finds: tuple[Issue, ...]
    """In the order of ISSUE_TYPES, then of the rows; the first `max_finds` of each kind."""
    verdict: str
    """One sentence on size and state."""
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()
    """What of the files and folders was not read or not looked at, in the user's words."""
    advice: tuple[str, ...] = ()
    """Cases at the edge that the set has no row of, and that users send all the same."""

    @property
    def serious(self) -> dict[str, int]:
        """The counts of what makes a check fail."""
        return {kind: count for kind, count in self.counts.items() if ISSUE_TYPES[kind].serious}

    @property
    def failed(self) -> bool:
        return bool(self.serious)


def length_histogram(lengths: np.ndarray) -> dict[int, int]:
    """Examples by length, ascending: the key is the power of two at or above it."""
    buckets = Counter((2 ** np.ceil(np.log2(np.maximum(lengths, 1)))).astype(int).tolist())
    return dict(sorted(buckets.items()))


def size_verdict(examples: int, labels: int) -> str:
    """What a number of examples is good for, as people find it in practice."""
    if examples < FEW:
        return msg_n(
            "{n} example: too few to learn from; aim for {good} or more",
            "{n:,} examples: too few to learn from; aim for {good} or more",
            examples,
            good=GOOD,
        )
    if examples < GOOD:
        return msg("{examples:,} examples: enough for a try; {good} to 1,000 are good", examples=examples, good=GOOD)
    if examples < BEST:
        return msg("{examples:,} examples: a good size", examples=examples) + (
            msg("; {best:,} or more are best for labels", best=BEST) if labels else ""
        )
    return f"{examples:,} examples: " + ("a very good size for classification" if labels else "a very good size")
