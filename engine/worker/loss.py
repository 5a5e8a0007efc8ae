"""The loss: cross-entropy at the supervised positions of a pack, summed, never averaged.

Only those positions are projected to the vocabulary. The one division, by the supervised tokens of the whole optimizer
step, is the training loop's: a sum divided once is the same however the step was cut into passes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.worker import attention
from engine.worker.packing import Pack

LOGITS_BUDGET_BYTES = 2**30
"""float32 logits of one chunk. Larger than this, they are computed in chunks and again in the backward pass."""


@dataclass(frozen=True)
class PackedLoss:
    """The fast path: the backbone over the whole stream, then the head at supervised positions only."""

    model: nn.Module
    """A causal language model of transformers, with or without PEFT layers inside."""

    def __call__(self, pack: Pack) -> Tensor:
        """Sum of the token losses, a float32 scalar."""
        with attention.packed(pack.lengths):
            return self._forward(pack)

    def backward(self, pack: Pack, divisor: float) -> Tensor:
        """Adds the gradients of the sum / `divisor`; returns the sum itself, detached."""
        with attention.packed(pack.lengths):  # around both: activation checkpointing runs layers again in backward
            loss = self._forward(pack)
            (loss / divisor).backward()
        return loss.detach()

    def _forward(self, pack: Pack) -> Tensor:
        hidden = self._backbone(pack)[0, pack.predict_at]
        chunk = max(1, LOGITS_BUDGET_BYTES // (4 * self.model.config.get_text_config().vocab_size))
        if len(hidden) <= chunk:
            return self._head_loss(hidden, pack.targets)
        parts = zip(hidden.split(chunk), pack.targets.split(chunk), strict=True)
        return torch.stack([checkpoint(self._head_loss, h, t, use_reentrant=False) for h, t in parts]).sum()

    def _backbone(self, pack: Pack) -> Tensor:
        return self.model.get_decoder()(
            input_ids=pack.input_ids, position_ids=pack.position_ids, use_cache=False
        ).last_hidden_state

    def _head_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        config = self.model.config.get_text_config()
        logits = self.model.get_output_embeddings()(hidden).float()
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if divisor := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / divisor
        if softcap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
            logits = torch.tanh(logits / softcap) * softcap
        return F.cross_entropy(logits, targets, reduction="sum")


@dataclass(frozen=True)
class PlainLoss:
    """One example at a time through the model's own forward pass, for models that do not fit the fast path."""

    model: nn.Module

    def __call__(self, pack: Pack) -> Tensor:
        """Sum of the token losses, a float32 scalar."""
        total = torch.zeros((), device=pack.input_ids.device)
        start = 0
        for length in pack.lengths:
            inside = (pack.predict_at >= start) & (pack.predict_at < start + length)
            logits = self.model(input_ids=pack.input_ids[:, start : start + length], use_cache=False).logits[0]
            at = pack.predict_at[inside] - start
            total = total + F.cross_entropy(logits[at].float(), pack.targets[inside], reduction="sum")
            start += length
        return total

    def backward(self, pack: Pack, divisor: float) -> Tensor:
        """Adds the gradients of the sum / `divisor`; returns the sum itself, detached."""
        loss = self(pack)
        (loss / divisor).backward()
        return loss.detach()


def choose_loss(model: nn.Module, pack: Pack, wanted: str, tolerance: float) -> tuple[PackedLoss | PlainLoss, str]:
    """The fast path where it gives the model's own loss on `pack`, else the plain one; and why, when it is the plain.

    The comparison also catches layers that leak state from one example of a pack into the next (linear attention,
    state-space and convolution layers), whatever they are called. `tolerance` is relative.
    """
    if wanted == "plain":
        return PlainLoss(model), "model.attention is plain"
    with torch.no_grad():
        own = float(PlainLoss(model)(pack))
        try:
            fast = float(PackedLoss(model)(pack))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return PlainLoss(model), f"the packed path fails on this model: {error}"
    if abs(fast - own) <= tolerance * max(1.0, abs(own)):
        return PackedLoss(model), ""
    return PlainLoss(model), f"packed, the model's loss is {fast:.6g} instead of {own:.6g}: its layers mix examples"
