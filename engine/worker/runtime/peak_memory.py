"""The run's peak memory, measured, beside the estimate for the passes it really makes."""

import resource
import sys
from typing import Any

import torch

from engine.plan.memory import EstimateInputs, memory_estimate
from engine.runs.journal import Journal
from engine.settings.schema import RunConfig
from engine.worker.data.packing import TokenSet
from engine.worker.model.load import Precision
from engine.worker.runtime.train_state import TrainState


class PeakMemory:
    """Made when the passes have been fitted to the card: trial passes do not count.

    `batch_size`: examples of a step that this process takes.
    """

    def __init__(
        self, journal: Journal, config: RunConfig, precision: Precision, tokens: TokenSet, batch_size: int
    ) -> None:
        self._journal, self._config, self._device = journal, config, precision.device
        self._longest, self._step_tokens = int(tokens.lengths.max()), tokens.largest_step(batch_size)
        self._inputs = estimate_inputs(precision, tokens, batch_size)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def record(self, state: TrainState) -> None:
        """Into the journal: peak_bytes, and predicted_bytes where the model's shape is known."""
        tokens = min(state.micro_tokens, self._step_tokens)
        estimate = memory_estimate(
            self._config,
            micro_tokens=max(tokens, self._longest),
            checkpointing=state.activation_checkpointing,
            inputs=self._inputs,
        )
        fields: dict[str, Any] = {"micro_tokens": tokens, "activation_checkpointing": state.activation_checkpointing}
        if self._device.type == "cuda":
            # The allocator does not count CUDA's own context, so the prediction leaves it out as well.
            context = estimate.parts["context"] if estimate else 0
            fields["peak_bytes"] = torch.cuda.max_memory_allocated(self._device)
            fields["reserved_bytes"] = torch.cuda.max_memory_reserved(self._device)
        else:
            context = 0
            fields["peak_bytes"] = peak_resident_bytes()
        fields["predicted_bytes"] = estimate.expected - context if estimate else None
        self._journal.write("memory", **fields)


def estimate_inputs(precision: Precision, tokens: TokenSet, batch_size: int) -> EstimateInputs:
    """What a plan's estimate wants to know, of steps of `batch_size` examples."""
    return EstimateInputs(
        device=precision.device.type,
        bfloat16=precision.autocast is not None,
        longest=int(tokens.lengths.max()),
        step_tokens=tokens.largest_step(batch_size),
        supervised=float(tokens.loss_mask.mean()),
    )


def peak_resident_bytes() -> int:
    """The most memory this process ever had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
