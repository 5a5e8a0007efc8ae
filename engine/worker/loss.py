"""The loss: cross-entropy at the supervised positions of a pack, summed, never averaged.

Only those positions are projected to the vocabulary. The one division, by the supervised tokens of the whole optimizer
step, is the training loop's: a sum divided once is the same however the step was cut into passes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from engine.worker import attention
from engine.worker.packing import Pack

LOGITS_BUDGET_BYTES = 2**30
"""float32 logits of one chunk. Larger than this, they are computed in chunks and again in the backward pass."""


@dataclass(frozen=True)
class PackedLoss:
    """The fast path: the backbone over the whole stream, then the head at supervised positions only."""

    model: PreTrainedModel
    """A causal language model, with or without PEFT layers inside."""

    def __call__(self, pack: Pack) -> Tensor:
        """Sum of the token losses, a float32 scalar."""
        return self.token_losses(pack).sum()

    def token_losses(self, pack: Pack) -> Tensor:
        """float32, shape (supervised,)."""
        with attention.packed(pack.lengths):
            return self._forward(pack)

    def backward(self, pack: Pack, divisor: float) -> Tensor:
        """Adds the gradients of the sum / `divisor`; returns the sum itself, detached."""
        with attention.packed(pack.lengths):  # around both: activation checkpointing runs layers again in backward
            loss = self._forward(pack).sum()
            (loss / divisor).backward()
        return loss.detach()

    def _forward(self, pack: Pack) -> Tensor:
        backbone = self.model.get_decoder()
        stream = backbone(input_ids=pack.input_ids, position_ids=pack.position_ids, use_cache=False).last_hidden_state
        hidden = stream[0, pack.predict_at]
        chunk = max(1, LOGITS_BUDGET_BYTES // (4 * self.model.config.get_text_config().vocab_size))
        if len(hidden) <= chunk:
            return self._head_losses(hidden, pack.targets)
        parts = zip(hidden.split(chunk), pack.targets.split(chunk), strict=True)
        return torch.cat([checkpoint(self._head_losses, h, t, use_reentrant=False) for h, t in parts])

    def _head_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        config = self.model.config.get_text_config()
        logits = self.model.get_output_embeddings()(hidden).float()
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if divisor := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / divisor
        if softcap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
            logits = torch.tanh(logits / softcap) * softcap
        return F.cross_entropy(logits, targets, reduction="none")


@dataclass(frozen=True)
class PlainLoss:
    """One example at a time through the model's own forward pass, for models that do not fit the fast path."""

    model: PreTrainedModel

    def __call__(self, pack: Pack) -> Tensor:
        """Sum of the token losses, a float32 scalar."""
        return self.token_losses(pack).sum()

    def token_losses(self, pack: Pack) -> Tensor:
        """float32, shape (supervised,)."""
        return torch.cat([losses for losses in self._each(pack)])

    def backward(self, pack: Pack, divisor: float) -> Tensor:
        """Adds the gradients of the sum / `divisor`; returns the sum itself, detached."""
        total = torch.zeros((), device=pack.input_ids.device)
        for losses in self._each(pack):
            (losses.sum() / divisor).backward()
            total += losses.detach().sum()
        return total

    def _each(self, pack: Pack) -> Iterator[Tensor]:
        start = 0
        for length in pack.lengths:
            inside = (pack.predict_at >= start) & (pack.predict_at < start + length)
            logits = self.model(input_ids=pack.input_ids[:, start : start + length], use_cache=False).logits[0]
            at = pack.predict_at[inside] - start
            yield F.cross_entropy(logits[at].float(), pack.targets[inside], reduction="none")
            start += length


def choose_loss(
    model: PreTrainedModel, pack: Pack, wanted: str, tolerance: float
) -> tuple[PackedLoss | PlainLoss, str]:
    """The fast path where it gives the model's own losses on `pack`, else the plain one; and why, when it is the plain.

    The comparison also catches layers that leak state from one example of a pack into the next (linear attention,
    state-space and convolution layers), whatever they are called: `tolerance` bounds the mean difference per token,
    relative to the mean loss, so that differences cannot cancel out.
    """
    if wanted == "plain":
        return PlainLoss(model), "model.attention is plain"
    with torch.no_grad():
        own = PlainLoss(model).token_losses(pack)
        try:
            fast = PackedLoss(model).token_losses(pack)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return PlainLoss(model), f"the packed path fails on this model: {error}"
        difference = float((fast - own).abs().mean() / own.abs().mean().clamp(min=0.1))
    if difference <= tolerance:
        return PackedLoss(model), ""
    return PlainLoss(model), f"packed, the model's losses differ by {difference:.2%}: its layers mix examples"
