"""How long a run is, and what changes in it from step to step."""

import math
from dataclasses import dataclass

from engine.config import RunConfig


@dataclass
class Progress:
    """What changes from step to step, beside weights, optimizer and random state."""

    step: int = 0
    tokens: int = 0
    """Real tokens trained on so far."""
    micro_tokens: int = 0
    activation_checkpointing: bool = False
    last_loss: float | None = None
    """Validation loss of the newest evaluation."""
    best_loss: float = math.inf
    best_step: int = -1
    evals_without_better: int = 0
    thinking_at_start: float | None = None
    """Share of the answers of the first evaluation that think; None without generated answers."""
    thinks_less: bool = False
    """That they do so less has been told."""


@dataclass(frozen=True)
class Plan:
    """How long the run is."""

    examples: int
    batch_size: int
    steps_per_epoch: int
    total_steps: int

    def epoch_of(self, step: int) -> float:
        return step / self.steps_per_epoch


def make_plan(config: RunConfig, examples: int) -> Plan:
    steps_per_epoch = math.ceil(examples / config.train.batch_size)
    total = steps_per_epoch * config.train.epochs
    if config.train.max_steps:
        total = min(total, config.train.max_steps)
    return Plan(examples, config.train.batch_size, steps_per_epoch, total)
