"""The optimizer."""

import torch
from torch import nn

from engine.base.errors import ModelError
from engine.base.messages import msg
from engine.settings.schema import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; weight decay on matrices only, as is the custom since GPT-2."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    beta1, beta2 = config.betas
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2), fused=True)
    try:
        import bitsandbytes.optim as eight_bit
    except ImportError as error:
        raise ModelError(
            msg(
                "optim.name {optimizer} needs bitsandbytes, which does not load: {error}",
                optimizer=config.name,
                error=error,
            ),
            "pip install bitsandbytes",
        ) from None
    if config.name == "paged_adamw8bit":
        if not torch.cuda.is_available():
            raise ModelError(
                "optim.name paged_adamw8bit needs a CUDA GPU", "Set optim.name to adamw8bit, which runs on the CPU too."
            )
        return eight_bit.PagedAdamW8bit(groups, lr=0.0, betas=(beta1, beta2))
    return eight_bit.AdamW8bit(groups, lr=0.0, betas=(beta1, beta2))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Of all its groups, for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
