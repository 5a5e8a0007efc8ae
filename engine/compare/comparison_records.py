"""What a comparison says: frozen values that a command prints and a screen draws.

Tuples that run over the compared things are as long as `Comparison.subjects` and in their order; the first subject is
the baseline that differences are taken to. A value that is not known is None. Times are seconds, memory is bytes.
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.metrics.best_evaluation import LOSS, Criterion
from engine.store.run_records import Chart, RunState

LETTERS = "ABCDEFGH"


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the things compared: a run, a checkpoint of a run, or an evaluation that belongs to no run."""

    letter: str
    asked: str
    """As the user named it: `41`, `41@best`, or a folder."""
    run_id: int | None
    title: str
    """The run's name, or the model's; text of unknown origin, to be made visible before it is shown."""
    state: RunState | None
    step: int | None
    """The step it stands at: of the checkpoint, or where a run was best. None before the first step."""
    last_step: int | None
    """The last step that counts: beyond a named checkpoint nothing is looked at."""
    is_run: bool = True
    """A run as a whole, not one of its checkpoints."""
    by: Criterion = LOSS
    """What decides where a run was best."""
    no_better: str = ""
    """Of a run that training made no better: that it did not, in words."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One metric of all subjects at one point of training."""

    key: str
    values: tuple[float | None, ...]
    steps: tuple[int | None, ...]
    """The step each value was logged at."""
    lower_is_better: bool | None
    """None: neither is better, as with tokens seen."""

    @property
    def differences(self) -> tuple[float | None, ...]:
        """Each value less the baseline's; the baseline's own is None."""
        baseline, *compared = self.values
        return (None, *(None if baseline is None or value is None else value - baseline for value in compared))

    @property
    def best(self) -> int | None:
        """Index of the best value; None where there is no such thing, or several share it."""
        if self.lower_is_better is None:
            return None
        ranked = sorted(
            (value if self.lower_is_better else -value, index)
            for index, value in enumerate(self.values)
            if value is not None and not math.isnan(value)
        )
        if len(ranked) < 2 or ranked[0][0] == ranked[1][0]:
            return None
        return ranked[0][1]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Results at one moment that all subjects share in some sense."""

    moment: str
    """'best', 'step', 'tokens' or 'time'."""
    title: str
    """In words, such as 'at the same step, 1,200'."""
    at: float | None
    """The step, the tokens or the seconds; None for 'best'."""
    rows: tuple[ResultRow, ...]


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting in which the subjects differ; `auto` is replaced by what it stood for."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one subject's run took."""

    seconds: float | None = None
    """While a worker was at work, pauses between attempts left out."""
    gpu_hours: float | None = None
    energy_wh: float | None = None
    peak_memory_bytes: int | None = None
    """Of the run's processes on one GPU; on the CPU what was resident."""
    checkpoint_bytes: int | None = None
    tokens: int | None = None
    """Trained on, repeated ones included."""
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What the subjects answered to one prompt."""

    prompt: str
    reference: str | None
    texts: tuple[str | None, ...]
    steps: tuple[int | None, ...]
    scores: tuple[Mapping[str, float], ...] = ()
    """By metric, where the answers were scored one by one; else empty."""


class Finding(enum.StrEnum):
    """What a run's curves show."""

    DIVERGING = "diverging"
    UNSTABLE = "unstable"
    UNSTABLE_FORMAT = "unstable format"
    NO_BETTER = "no better"
    OVER_FITTING = "over-fitting"
    UNDER_FITTING = "under-fitting"
    STILL_IMPROVING = "still improving"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    finding: Finding
    reason: str
    """The figures it rests on, in a sentence."""
    advice: str
    """The next thing to try."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One metric of two subjects on the same examples: the difference, and how sure it is."""

    key: str
    first: int
    """Indices of the two subjects; the difference is the second's value less the first's."""
    second: int
    examples: int
    values: tuple[float, float]
    difference: float
    low: float
    high: float
    """The 95% interval of the difference (paired bootstrap)."""
    p: float
    """Two-sided; corrected by Holm's method when more than two subjects are compared."""
    test: str
    """'McNemar' (exact) for right or wrong, 'sign flip' for everything else."""
    wins: int | None
    """Questions on which the second is better; None for losses and graded scores."""
    losses: int | None
    needed: int | None
    """Examples with which a difference of this size would be found 4 times in 5; None when they are enough already,
    or when no difference was seen at all."""
    sentence: str


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """Subjects of the same settings but for their seeds."""

    members: tuple[int, ...]
    key: str
    mean: float
    spread: float
    """Sample standard deviation over the seeds."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Comparison:
    subjects: tuple[Subject, ...]
    results: tuple[ResultTable, ...]
    settings: tuple[SettingRow, ...]
    costs: tuple[Cost, ...]
    curves: Mapping[str, tuple[Chart | None, ...]]
    """By metric: one chart for each subject, all over the same range of the x axis."""
    x: str
    """The curves' x axis: 'step', 'tokens' or 'time'."""
    answers: tuple[Answers, ...]
    diagnoses: tuple[tuple[Diagnosis, ...], ...]
    """For each subject."""
    groups: tuple[SeedGroup, ...]
    warnings: tuple[str, ...]
    evaluations: tuple[Path | None, ...]
    """The folder with each subject's predictions, all on the same examples where there are such."""
    evidence: tuple[Evidence, ...] = ()
    """Filled by `significance.with_evidence`, which takes longer than all the rest."""
    notes: tuple[str, ...] = field(default=())
    """Why something is missing: no predictions to pair, another tokenizer."""
