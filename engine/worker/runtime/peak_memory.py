"""The run's peak memory, measured, beside what arithmetic said of the passes it really makes."""

import resource
import sys

import torch

from engine.plan.memory import EstimateInputs, memory_estimate
from engine.runs.journal import Journal
from engine.settings.schema import RunConfig
from engine.worker.data.packing import TokenSet
from engine.worker.model.load import Precision
from engine.worker.runtime.train_state import TrainState


class PeakMemory:
    """Made when the passes have been fitted to the card: what was tried out before does not count.

    `batch_size`: examples of a step that this process takes.
    """

    def __init__(
        self, journal: Journal, config: RunConfig, precision: Precision, tokens: TokenSet, batch_size: int
    ) -> None:
        self._journal, self._config, self._device = journal, config, precision.device
        self._known = EstimateInputs(
            device=precision.device.type,
            bfloat16=precision.autocast is not None,
            longest=int(tokens.lengths.max()),
            step_tokens=tokens.largest_step(batch_size),
            supervised=float(tokens.trained.mean()),
        )
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def tell(self, progress: TrainState) -> None:
        """Into the journal: peak_bytes, and predicted_bytes where the model's shape is known."""
        tokens = min(progress.micro_tokens, self._known.step_tokens)
        estimate = memory_estimate(
            self._config,
            micro_tokens=max(tokens, self._known.longest),
            checkpointing=progress.activation_checkpointing,
            inputs=self._known,
        )
        fields = {"micro_tokens": tokens, "activation_checkpointing": progress.activation_checkpointing}
        if self._device.type == "cuda":
            # The allocator knows nothing of CUDA's own context, so the prediction leaves it out as well.
            context = estimate.parts["context"] if estimate else 0
            fields["peak_bytes"] = torch.cuda.max_memory_allocated(self._device)
            fields["reserved_bytes"] = torch.cuda.max_memory_reserved(self._device)
        else:
            context = 0
            fields["peak_bytes"] = peak_resident_bytes()
        fields["predicted_bytes"] = estimate.expected - context if estimate else None
        self._journal.write("memory", **fields)


def peak_resident_bytes() -> int:
    """The most memory this process ever had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
