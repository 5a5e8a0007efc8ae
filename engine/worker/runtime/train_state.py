"""How long a run is, and what changes in it from step to step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.metrics.best_evaluation import Criterion
from engine.runs.lr_schedule import steps
from engine.settings.auto_values import ResolvedConfig


@dataclass
class TrainState:
    """What changes from step to step, beside weights, optimizer and random state."""

    step: int = 0
    tokens: int = 0
    """Real tokens trained on so far."""
    micro_tokens: int = 0
    activation_checkpointing: bool = False
    last_loss: float | None = None
    """Validation loss of the newest evaluation."""
    best_value: float | None = None
    """Of what eval.best names."""
    best_step: int = -1
    evals_without_better: int = 0
    thinking_at_start: float | None = None
    """Share of the answers of the first evaluation that think; None without generated answers."""
    thinks_less: bool = False
    """That they do so less has been reported."""

    @staticmethod
    def restored(saved: dict[str, Any]) -> "TrainState":
        """From a checkpoint, that of an older version too: there the best value was always a loss."""
        saved = dict(saved)
        if "best_loss" in saved:
            loss = saved.pop("best_loss")
            saved["best_value"] = loss if math.isfinite(loss) else None
        return TrainState(**saved)

    def record_evaluation(self, scores: Mapping[str, float], criterion: Criterion) -> None:
        """Count this step's evaluation. One that lacks the value, since a command failed, counts for nothing; at the
        first evaluation that is an InputError, since the value would never come."""
        if criterion.key in scores:
            self.record_value(self.step, scores[criterion.key], criterion)
        elif self.step == 0:
            names = ", ".join(key.removeprefix("eval/") for key in scores)
            raise InputError(
                msg(
                    "eval.best is {criterion}, but no {metric} was measured",
                    criterion=criterion.text,
                    metric=criterion.name,
                ),
                msg("There are {names}.", names=names),
            )

    def describe_best(self) -> str:
        """The best value and its step, in words."""
        if self.best_value is None:
            return "none was a number"
        when = msg("at step {step:,}", step=self.best_step) if self.best_step else "at its start, never better"
        return msg("the best is {best:.4f} {when}", best=self.best_value, when=when)

    def record_value(self, step: int, value: float, criterion: Criterion) -> None:
        """Count an evaluation's value: the best so far, or one more evaluation without a better value."""
        if criterion.better(value, self.best_value):
            self.best_value, self.best_step, self.evals_without_better = value, step, 0
        else:
            self.evals_without_better += 1


@dataclass(frozen=True)
class Schedule:
    """How long the run is."""

    examples: int
    batch_size: int
    steps_per_epoch: int
    total_steps: int

    def epoch_of(self, step: int) -> float:
        """How many epochs have passed at `step`, fractions included."""
        return step / self.steps_per_epoch


def make_schedule(config: ResolvedConfig, examples: int) -> Schedule:
    """For a run on so many training `examples`."""
    steps_per_epoch, total_steps = steps(config, examples)
    return Schedule(examples, config.train.batch_size, steps_per_epoch, total_steps)
