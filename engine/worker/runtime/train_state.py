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
    """That they do so less has been told."""

    @staticmethod
    def restored(saved: dict[str, Any]) -> "TrainState":
        """From a checkpoint, that of an older version too: there the best value was always a loss."""
        saved = dict(saved)
        if "best_loss" in saved:
            loss = saved.pop("best_loss")
            saved["best_value"] = loss if math.isfinite(loss) else None
        return TrainState(**saved)

    def judge(self, scores: Mapping[str, float], criterion: Criterion) -> None:
        """Take in this step's evaluation. One that lacks the value, since a command failed, says nothing; but at the
        first, InputError: it would never come."""
        if criterion.key in scores:
            self.take(self.step, scores[criterion.key], criterion)
        elif self.step == 0:
            names = ", ".join(key.removeprefix("eval/") for key in scores)
            raise InputError(
                msg(
                    "eval.best is {criterion}, but no {criterion_name} was measured",
                    criterion=criterion.text,
                    criterion_name=criterion.name,
                ),
                msg("There are {names}.", names=names),
            )

    @property
    def best_words(self) -> str:
        where = (
            msg("at step {best_step:,}", best_step=self.best_step) if self.best_step else "at its start, never better"
        )
        return (
            "none was a number"
            if self.best_value is None
            else msg("the best is {best_value:.4f} {where}", best_value=self.best_value, where=where)
        )

    def take(self, step: int, value: float, criterion: Criterion) -> None:
        """An evaluation's value: the best so far, or one more without a better."""
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
        return step / self.steps_per_epoch


def make_schedule(config: ResolvedConfig, examples: int) -> Schedule:
    steps_per_epoch, total_steps = steps(config, examples)
    return Schedule(examples, config.train.batch_size, steps_per_epoch, total_steps)
