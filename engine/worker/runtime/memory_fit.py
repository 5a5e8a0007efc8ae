"""Tokens per forward pass: as many as fit, found by trying; and what to do when memory runs out all the same."""

import gc

import numpy as np
import torch
from torch import nn

from engine.base.errors import OutOfMemory
from engine.base.messages import msg
from engine.base.units import bytes_text
from engine.models.device_limits import ENOUGH_TOKENS, GPU_SHARE
from engine.models.model_shape import find_shape
from engine.monitor.host import HostReader
from engine.plan.memory import EstimateInputs, host_pass_tokens, memory_estimate, pass_tokens
from engine.runs.failure_reasons import SINGLE_EXAMPLE_TOO_LARGE
from engine.runs.journal import Journal
from engine.settings.schema import RunConfig
from engine.worker.data.packing import TokenSet, make_pack, plan_passes
from engine.worker.model.load import Precision, enable_activation_checkpointing
from engine.worker.model.loss import PackedLoss, UnpackedLoss
from engine.worker.model.out_of_memory import is_out_of_memory
from engine.worker.runtime.peak_memory import estimate_inputs
from engine.worker.runtime.train_state import TrainState


def find_micro_tokens(
    loss_fn: PackedLoss | UnpackedLoss,
    tokens: TokenSet,
    batch_size: int,
    parameters: list[nn.Parameter],
    precision: Precision,
) -> tuple[int, bool]:
    """Double the tokens per pass, forward and backward for real, until the card is full or a step holds no more.

    Returns the tokens that fit, and whether they are enough to keep the device busy.
    """
    longest, step_tokens = int(tokens.lengths.max()), tokens.largest_step(batch_size)
    free, total = torch.cuda.mem_get_info(precision.device)
    # Adam's two moments come with the first step; a trial has to leave room for them.
    moments = sum(2 * 4 * p.numel() for p in parameters)
    held_by_others = total - free - torch.cuda.memory_reserved(precision.device)
    budget = trial_budget(total, held_by_others, moments)
    fits, trial = 0, longest
    by_length = np.argsort(-tokens.lengths, kind="stable")
    with torch.random.fork_rng(precision.devices):
        while True:
            group = plan_passes(by_length[:batch_size], tokens.lengths, trial)[0]
            torch.cuda.reset_peak_memory_stats(precision.device)
            try:
                with precision.context():
                    loss_fn.backward(make_pack(tokens, group).to(precision.device), 1.0)
                peak = torch.cuda.max_memory_allocated(precision.device)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                peak = total
            for parameter in parameters:
                parameter.grad = None
            torch.cuda.empty_cache()
            if peak > budget:
                break
            fits = trial
            if trial >= step_tokens:
                break
            trial = min(2 * trial, step_tokens)
    return max(fits, longest), fits >= min(step_tokens, ENOUGH_TOKENS)


def trial_budget(total: int, held_by_others: int, moments: int) -> float:
    """Bytes a trial may take of a card with `total` bytes, beside other processes and what Adam's moments will need."""
    return GPU_SHARE * (total - held_by_others) - moments


def fit_memory(
    journal: Journal,
    state: TrainState,
    config: RunConfig,
    loss_fn: PackedLoss | UnpackedLoss,
    tokens: TokenSet,
    batch_size: int,
    parameters: list[nn.Parameter],
    precision: Precision,
) -> None:
    """Tokens per pass for this machine; where too few fit to keep it busy, activations are recomputed, not kept.

    `batch_size`: examples of a step that this process takes.
    """
    if config.train.micro_tokens != "auto":
        state.micro_tokens = config.train.micro_tokens
        return
    if state.activation_checkpointing:
        enable_activation_checkpointing(loss_fn.model)
    if precision.device.type == "cpu":
        state.micro_tokens = _host_tokens(config, estimate_inputs(precision, tokens, batch_size))
        return
    state.micro_tokens, enough = find_micro_tokens(loss_fn, tokens, batch_size, parameters, precision)
    if enough or config.train.activation_checkpointing != "auto":
        return
    state.activation_checkpointing = True
    enable_activation_checkpointing(loss_fn.model)
    tokens_without = state.micro_tokens
    state.micro_tokens, _ = find_micro_tokens(loss_fn, tokens, batch_size, parameters, precision)
    journal.write(
        "event",
        event="activation-checkpointing",
        message=msg(
            "Only {tokens_without:,} tokens fit in a pass; with activations recomputed, {tokens:,} do.",
            tokens_without=tokens_without,
            tokens=state.micro_tokens,
        ),
    )


def _host_tokens(config: RunConfig, inputs: EstimateInputs) -> int:
    """Not by trying: the kernel ends who takes more than there is."""
    shape, memory_bytes = find_shape(config.model), HostReader().read().memory_bytes
    if shape is None or memory_bytes is None:
        return pass_tokens(config, inputs)
    return host_pass_tokens(config, shape, inputs, memory_bytes)


def refuse_without_memory(config: RunConfig, bfloat16: bool) -> None:
    """Raises OutOfMemory where not even the weights fit into what a run on the CPU may have: it would be killed."""
    host = HostReader().read()
    estimate = memory_estimate(config, inputs=EstimateInputs("cpu", bfloat16))
    room_bytes = (host.memory_bytes or 0) + (host.swap_total_bytes or 0)
    if estimate is None or not room_bytes or (needed := estimate.parts["weights"]) <= room_bytes:
        return
    raise OutOfMemory(
        msg(
            "the model's weights take {needed} of memory, and {room} is all there is{owner}",
            needed=bytes_text(needed),
            room=bytes_text(room_bytes),
            owner=msg(" ({owner} is limited)", owner=host.memory_limit_owner) if host.memory_limit_owner else "",
        ),
        "`finetop plan` says what a run needs, and what makes it smaller.",
    )


def give_back_memory() -> None:
    """Free what only garbage holds, on the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def halve_micro_batch(
    journal: Journal, state: TrainState, lengths: np.ndarray, config: RunConfig, failure: str
) -> None:
    """Halve the tokens per forward pass after running out of memory, or OutOfMemory where that cannot help."""
    give_back_memory()
    smallest_useful = int(lengths.max())
    in_use = min(state.micro_tokens, int(lengths.sum()))
    if config.run.on_oom == "fail" or in_use <= smallest_useful:
        raise OutOfMemory(
            SINGLE_EXAMPLE_TOO_LARGE(step=state.step + 1, tokens=smallest_useful, failure=failure),
            "Cheapest first: --set train.activation_checkpointing=true, a smaller data.max_length, --method qlora.",
        )
    state.micro_tokens = max(in_use // 2, 8)
    journal.write(
        "event",
        event="oom",
        step=state.step + 1,
        message=msg(
            "Out of memory at step {step}; repeating it with {tokens:,} tokens a pass, "
            "which changes nothing in the result.",
            step=state.step + 1,
            tokens=state.micro_tokens,
        ),
        micro_tokens=state.micro_tokens,
    )
