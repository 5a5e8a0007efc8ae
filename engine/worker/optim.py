"""The optimizer, and the learning rate as a pure function of the step."""

import math

import torch
from torch import nn

from engine.config import OptimConfig
from engine.errors import ModelError


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; weight decay on matrices only, as is the custom since GPT-2."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    options = {"lr": 0.0, "betas": tuple(config.betas)}
    if config.name == "adamw":
        return torch.optim.AdamW(groups, fused=True, **options)
    try:
        import bitsandbytes.optim as eight_bit
    except ImportError as error:
        raise ModelError(
            f"optim.name {config.name} needs bitsandbytes, which does not load: {error}", "pip install bitsandbytes"
        ) from None
    if config.name == "paged_adamw8bit":
        if not torch.cuda.is_available():
            raise ModelError(
                "optim.name paged_adamw8bit needs a CUDA GPU", "Set optim.name to adamw8bit, which runs on the CPU too."
            )
        return eight_bit.PagedAdamW8bit(groups, **options)
    return eight_bit.AdamW8bit(groups, **options)


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """The rate of optimizer step `step`, counted from 1, in a run of `total_steps`."""
    warmup = config.warmup if config.warmup >= 1 else math.ceil(config.warmup * total_steps)
    if step <= warmup:
        return config.learning_rate * step / warmup
    progress = (step - 1 - warmup) / max(1, total_steps - warmup)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "linear":
        return config.learning_rate * (1 - progress)
    return config.learning_rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
