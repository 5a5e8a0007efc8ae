"""What `auto` stands for once the training rows are counted, and the config whose numbers are numbers from then on."""

import dataclasses
import math
from typing import Any

from engine.settings.schema import OptimConfig, RunConfig, TrainConfig


class ResolvedOptim(OptimConfig):
    """Optimizer settings whose learning rate is a number."""

    learning_rate: float


class ResolvedTrain(TrainConfig):
    """Training settings whose epochs and batch size are numbers."""

    epochs: int
    batch_size: int


class ResolvedConfig(RunConfig):
    """A config after `resolve_auto`. What only the worker can choose, by the memory there is, may still be `auto`:
    tokens a pass and activation checkpointing."""

    optim: ResolvedOptim
    train: ResolvedTrain


def resolve_auto(config: RunConfig, rows: int) -> ResolvedConfig:
    """`config` with what `auto` stands for with so many training rows."""
    return require_resolved(config.replace(auto_values(config, rows)))


def require_resolved(config: RunConfig) -> ResolvedConfig:
    """A config that was saved after `auto` was resolved. Raises ValueError where a setting still is `auto`."""
    for path in ("train.epochs", "train.batch_size", "optim.learning_rate"):
        if config.flat()[path] == "auto":
            raise ValueError(f"{path} is still auto")
    groups = {group.name: getattr(config, group.name) for group in dataclasses.fields(config)}
    groups["optim"] = ResolvedOptim(**vars(config.optim))
    groups["train"] = ResolvedTrain(**vars(config.train))
    return ResolvedConfig(**groups)


def auto_values(config: RunConfig, rows: int) -> dict[str, Any]:
    """What `auto` stands for with so many training rows: settings by path, only those that are auto.

    Under 100 rows: 4 epochs and half the rate; up to 1000: 3; above: 2. The batch grows with the square root of the
    rows, so that small sets still get enough optimizer steps. Adapters take a ten times higher rate than full weights,
    after Biderman et al. 2024, "LoRA Learns Less and Forgets Less", and Schulman et al. 2025, "LoRA Without Regret".
    """
    chosen: dict[str, Any] = {}
    if config.train.epochs == "auto":
        chosen["train.epochs"] = 4 if rows < 100 else 3 if rows <= 1000 else 2
    if config.train.batch_size == "auto":
        chosen["train.batch_size"] = max(1, min(32, 2 ** round(math.log2(max(1.0, math.sqrt(rows) / 4)))))
    if config.optim.learning_rate == "auto":
        rate = 2e-5 if config.method.kind == "full" else 2e-4
        chosen["optim.learning_rate"] = rate / 2 if rows < 100 else rate
    return chosen
