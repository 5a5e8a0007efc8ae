"""Which evaluation of a run is its best, and whether training made it better at all: decided here and nowhere else.

`eval.best` names the metric and the good direction. The value before the first step is the base model's and not the
run's: a run whose evaluations since are no better has got worse, whatever its figures look like beside other runs'.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.base.messages import msg
from engine.metrics.names import lower_is_better, metric_name

_DIRECTIONS = {"min": True, "max": False}


@dataclass(frozen=True, slots=True)
class Criterion:
    """A metric by its key in the journal, such as `eval/macro_f1`, and which direction is the good one."""

    key: str
    lower: bool

    @property
    def name(self) -> str:
        """As `eval.best` takes it: `loss`, `macro_f1`, `loss@web`."""
        return self.key.removeprefix("eval/")

    @property
    def text(self) -> str:
        """In full, as `eval.best` takes it and the store keeps it: `macro_f1:max`."""
        return f"{self.name}:{'min' if self.lower else 'max'}"

    @property
    def words(self) -> str:
        return f"{'lowest' if self.lower else 'highest'} {metric_name(self.key)}"

    def better(self, value: float, than: float | None) -> bool:
        """False for NaN, and for a value that is just as good."""
        return value == value and (than is None or (value < than if self.lower else value > than))

    def first(self, points: Iterable[tuple[int, float]]) -> tuple[int, float] | None:
        """The best of (step, value) pairs, the earliest of equals; None where no value is a number."""
        best = None
        for step, value in points:
            if self.better(value, None if best is None else best[1]):
                best = step, value
        return best


LOSS = Criterion("eval/loss", True)


def parse(text: str) -> Criterion:
    """`loss`, `macro_f1`, `toxicity:min`. ValueError, in words, for a metric of unknown direction without one."""
    name, colon, direction = text.strip().removeprefix("eval/").rpartition(":")
    if not colon:
        name, direction = direction, ""
    if not name or (colon and direction not in _DIRECTIONS):
        raise ValueError("must be a metric, METRIC:max or METRIC:min")
    key = f"eval/{name}"
    lower = _DIRECTIONS.get(direction, lower_is_better(key))
    if lower is None:
        raise ValueError(f"needs a direction, since nobody else knows whether more is better: {name}:max or {name}:min")
    return Criterion(key, lower)


def criteria(key: str) -> list[str]:
    """The texts, as `eval.best` takes them in full, by which a metric of the journal may rule: both directions where
    nobody knows which is the good one."""
    try:
        return [parse(key).text]
    except ValueError:
        return [f"{key.removeprefix('eval/')}:{direction}" for direction in ("max", "min")]


@functools.lru_cache
def parse_criterion(text: str | None) -> Criterion:
    """As stored or journalled, by whatever version: the loss for what cannot be read."""
    try:
        return parse(text or "loss")
    except ValueError:
        return LOSS


@dataclass(frozen=True, slots=True)
class Best:
    """Where a run stands by its criterion."""

    criterion: Criterion
    value: float | None
    """The best since training began; None: not evaluated since."""
    step: int | None
    start: float | None
    """Before the first step; None: not evaluated then."""

    @property
    def improved(self) -> bool | None:
        """Better than at its start; None: not evaluated since."""
        if self.value is None:
            return None
        return self.start is None or self.criterion.better(self.value, self.start)

    @property
    def badness(self) -> float | None:
        """The smaller, the better, among runs with the same criterion; None: not evaluated since its start."""
        return self.value if self.value is None or self.criterion.lower else -self.value

    @property
    def metric(self) -> str:
        """What the value is of: `eval loss`, `macro_f1`."""
        return metric_name(self.criterion.key)

    def brief(self, number: Callable[[float], str]) -> str:
        """For a narrow column: `0.512`; `3.073 at 0` where training made it no better; nothing where it is untold."""
        if self.value is None:
            return ""
        return number(self.value) if self.improved or self.start is None else f"{number(self.start)} at 0"

    def words(self, number: Callable[[float], str]) -> str:
        """`0.512 at step 30`; `3.073 at its start, never better`; nothing where it was never evaluated."""
        if self.value is None:
            return (
                "" if self.start is None else msg("{start} at its start, not evaluated since", start=number(self.start))
            )
        if self.improved or self.start is None:
            return msg("{number} at step {step:,}", number=number(self.value), step=self.step)
        return msg("{start} at its start, never better", start=number(self.start))


def best_of(points: Iterable[tuple[int, float]], criterion: Criterion) -> Best:
    """From a run's evaluations as (step, value) pairs in order."""
    points = list(points)
    step, value = criterion.first(point for point in points if point[0] > 0) or (None, None)
    start = next((value for step, value in points if step == 0 and value == value), None)
    return Best(criterion, value, step, start)
