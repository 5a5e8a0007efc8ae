"""The loss: cross-entropy at the supervised positions of a pack, summed, never averaged.

Only those positions are projected to the vocabulary. The one division, by the supervised tokens of the whole optimizer
step, is the training loop's: a sum divided once is the same however the step was cut into passes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from engine.base.errors import ModelError
from engine.base.messages import msg
from engine.models.device_limits import LOGITS_BUDGET_BYTES
from engine.worker.data.packing import Pack
from engine.worker.model import attention
from engine.worker.model.load import table_positions
from engine.worker.model.out_of_memory import is_out_of_memory

_TRIAL_TOKENS, _LEAST_TRIAL_TOKENS = 256, 12

LOSS_TOLERANCE = {None: 1e-4, torch.bfloat16: 2e-2}
"""How far, by the type of the arithmetic, the fast path's losses may be from the model's own."""


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
        hidden = stream[0, pack.label_positions]
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
        return _CrossEntropy.apply(logits, targets)


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of each row, in the memory of the logits: they become log-probabilities, then their own gradient.

    torch's own keeps the logits and the log-probabilities, and clears and fills a third tensor of that size on the way
    back: at a vocabulary of 32,000 a tenth of a step. Takes float32 logits (n, vocabulary) that nobody else uses, and
    targets (n,); the backward pass can run once only.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits, -1, out=logits)
        ctx.save_for_backward(log_p, targets)
        return -log_p.gather(1, targets[:, None])[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        log_p, targets = ctx.saved_tensors
        to_logits = log_p.exp_()
        to_logits[torch.arange(len(targets), device=targets.device), targets] -= 1
        return to_logits.mul_(gradient[:, None]), None


@dataclass(frozen=True)
class UnpackedLoss:
    """One example at a time through the model's own forward pass, for models that do not fit the fast path."""

    model: PreTrainedModel

    def __call__(self, pack: Pack) -> Tensor:
        """Sum of the token losses, a float32 scalar."""
        return self.token_losses(pack).sum()

    def token_losses(self, pack: Pack) -> Tensor:
        """float32, shape (supervised,)."""
        return torch.cat(list(self._each(pack)))

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
            inside = (pack.label_positions >= start) & (pack.label_positions < start + length)
            logits = self.model(input_ids=pack.input_ids[:, start : start + length], use_cache=False).logits[0]
            at = pack.label_positions[inside] - start
            yield F.cross_entropy(logits[at].float(), pack.targets[inside], reduction="none")
            start += length


def choose_loss(
    model: PreTrainedModel, pack: Pack, attention_path: str, tolerance: float
) -> tuple[PackedLoss | UnpackedLoss, str]:
    """`PackedLoss` where it gives the model's own losses, else `UnpackedLoss`; and why, when it is the latter.

    `attention_path` is model.attention. Tried on some of the pack's tokens, against the model with transformers' own
    eager attention. `tolerance` bounds the mean difference per token, relative to the mean loss, so that differences
    cannot cancel out. A model that finetop's attention does not suit even for one example keeps eager attention.
    Raises ModelError where `packed` is required and not right.
    """
    trial = _trial(pack, table_positions(model))
    with torch.no_grad():
        model.set_attn_implementation("eager")
        expected = UnpackedLoss(model).token_losses(trial)
        model.set_attn_implementation(attention.NAME)
    reason = (
        "model.attention is plain" if attention_path == "plain" else _packed_differs(model, trial, expected, tolerance)
    )
    if not reason:
        return PackedLoss(model), ""
    if attention_path == "packed":
        raise ModelError(
            msg("model.attention is packed, but {reason}", reason=reason),
            "Leave it at auto to train one example a pass.",
        )
    try:
        with torch.no_grad():
            matches = (
                model._supports_sdpa and _difference(UnpackedLoss(model).token_losses(trial), expected) <= tolerance
            )
    except ModelError:
        matches = False
    if not matches:
        model.set_attn_implementation("eager")
    return UnpackedLoss(model), reason


def _packed_differs(model: PreTrainedModel, trial: Pack, expected: Tensor, tolerance: float) -> str:
    """Why the fast path is not right for this model; empty where it is."""
    embedded: list[Tensor] = []

    def watch(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = model.get_input_embeddings().register_forward_hook(watch)
    try:
        losses = PackedLoss(model).token_losses(trial)
        with attention.packed(trial.lengths):
            (gradient,) = torch.autograd.grad(losses[trial.lengths[0] - 1 :].sum(), embedded[:1])
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return msg("the packed path fails on this model: {error}", error=getattr(error, "message", error))
    finally:
        hook.remove()
    # Exact in every precision: what one example has no part in, it has no gradient of.
    if gradient[0, : trial.lengths[0]].any():
        return "packed, the model's layers mix examples"
    difference = _difference(losses.detach(), expected)
    return (
        msg("packed, the model's losses differ by {difference:.2%}", difference=difference)
        if difference > tolerance
        else ""
    )


def _trial(pack: Pack, positions: int | None) -> Pack:
    """Two examples made from the pack's first tokens, with every token but the first of each a label; neither is
    longer than `positions`, the model's table of them.
    """
    ids = pack.input_ids[0, :_TRIAL_TOKENS]
    ids = ids.repeat(-(-_LEAST_TRIAL_TOKENS // len(ids)))
    if positions is not None:
        ids = ids[: 3 * positions // 2]
    lengths = (len(ids) // 3, len(ids) - len(ids) // 3)
    position_ids = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
    targets_at = position_ids.nonzero()[:, 0]
    return Pack(ids[None], position_ids[None], lengths, targets_at - 1, ids[targets_at])


def _difference(losses: Tensor, expected: Tensor) -> float:
    return float((losses - expected).abs().mean() / expected.abs().mean().clamp(min=0.1))
