"""How long a run is, and what changes in it from step to step."""

import math
from dataclasses import dataclass

from engine.config import RunConfig
from engine.plan.schedule import steps


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
    steps_per_epoch, total_steps = steps(config, examples)
    return Plan(examples, config.train.batch_size, steps_per_epoch, total_steps)
