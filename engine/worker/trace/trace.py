"""The exact memory of a run without weights or a GPU: one step, one evaluation and one save, on fake tensors.

The model is the real class with the real adapters, built on the `meta` device; its loss, its checkpointing and its
optimizer are the worker's own. Fake tensors have shapes and types and no data, so a step of a 7B model takes seconds
and next to no memory. `Allocations` follows each storage from its allocation to its release.

A GPU is simulated on the CPU, since fake CUDA tensors need a CUDA build: autocast with the CPU's list of operations,
the variable-length attention kernel and bitsandbytes' matrices by fakes of the same inputs, outputs and workspace.
`python -m engine.worker.trace.trace` reads a request as JSON from stdin and prints the answer: `answer` documents
both.
"""

import contextlib
import functools
import json
import sys
import time
import unittest.mock
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from engine.settings.resolve import Layer, resolve
from engine.settings.schema import RunConfig
from engine.worker.data.packing import Pack
from engine.worker.model import attention, fast_layers
from engine.worker.model.load import (
    Precision,
    causal_lm,
    enable_activation_checkpointing,
    make_trainable,
    precision_for,
)
from engine.worker.model.loss import PackedLoss, UnpackedLoss
from engine.worker.model.optimizer import make_optimizer
from engine.worker.runtime.resume_checks import PROBE_TOKENS
from engine.worker.trace.allocations import CUDA_BLOCK, Allocations
from engine.worker.trace.fake_kernels import flash_attention, fused_norm, pack_in_four_bits

_PAGED_FROM = 100_000
"""Numbers from which on bitsandbytes pages an optimizer's moments (bitsandbytes.optim, get_state_buffer)."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Peak bytes by phase, and their largest.

    request: `settings` (by path), `config` (the content of config.json), `device` (cuda or cpu), `bfloat16` (the device
    is good at it), `lengths` (tokens of the examples of the largest pass), `supervised` (share of them trained on),
    `passes` (forward passes in a step: 1, or 2 for more), `checkpointing`.
    """
    began = time.perf_counter()
    config = resolve([Layer("plan", request["settings"])]).config
    options = {key: request[key] for key in ("device", "bfloat16", "lengths", "supervised", "passes", "checkpointing")}
    traced = trace(config, request["config"], **options)
    return traced | {"seconds": round(time.perf_counter() - began, 2), "torch": str(torch.__version__)}


def trace(
    config: RunConfig,
    model_config: dict[str, Any],
    *,
    device: str,
    bfloat16: bool,
    lengths: Sequence[int],
    supervised: float,
    passes: int,
    checkpointing: bool,
) -> dict[str, Any]:
    """`phases`: peak bytes of each; `peak`: the largest; `held`: model and optimizer; `parameters`, `trainable`."""
    attention.register()
    transformers_logging.set_verbosity_error()
    precision = precision_for(config, torch.device("cpu"), device == "cuda", bfloat16)
    trained = build(config, model_config, precision)
    if device == "cuda":
        fast_layers.fuse_layers(trained)
    lm = causal_lm(trained)
    loss_fn = UnpackedLoss(lm) if config.model.attention == "plain" else PackedLoss(lm)
    peaks: dict[str, int] = {}
    memory = Allocations(CUDA_BLOCK if device == "cuda" else 1)
    with _as_on(device), FakeTensorMode(allow_non_fake_inputs=True), memory:
        with memory.phase(peaks, "model"):
            give_storage(trained)
        parameters = [p for p in trained.parameters() if p.requires_grad]
        if checkpointing:
            enable_activation_checkpointing(lm)
            if device == "cuda":
                _casts_end_with_recomputing(lm)
        pack = fake_pack(lengths, supervised)
        trained.train()
        step = _stepper(trained, parameters, config)
        for _ in range(2):  # the moments are made by the first step and are there in the second
            with memory.phase(peaks, "training"):
                for _ in range(passes):
                    with _context(precision, device):
                        loss_fn.backward(pack, 1.0)
            with memory.phase(peaks, "optimizer"):
                nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
                step()
        trained.eval()
        held = memory.now
        with memory.phase(peaks, "evaluation"), torch.no_grad(), _context(precision, device):
            loss_fn(pack)
        with memory.phase(peaks, "save"), torch.no_grad(), _context(precision, device):
            trained.state_dict()
            loss_fn(fake_pack([min(PROBE_TOKENS, max(lengths))], supervised))
    return {
        "phases": peaks,
        "peak": max(peaks.values()),
        "held": held,
        "parameters": sum(p.numel() for p in trained.parameters()),
        "trainable": sum(p.numel() for p in parameters),
        "device": device,
    }


def build(config: RunConfig, model_config: dict[str, Any], precision: Precision) -> nn.Module:
    """The model with its trainable weights on the `meta` device, as `load_base` and `make_trainable` would make it."""
    shape = AutoConfig.for_model(**model_config)
    shape.use_cache = False
    with torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(
                shape, attn_implementation=attention.NAME, dtype=precision.base_dtype
            )
        except KeyError:  # see load_base
            model = AutoModelForCausalLM.from_config(shape, attn_implementation="eager", dtype=precision.base_dtype)
        if config.method.kind == "qlora":
            pack_in_four_bits(model, precision.autocast or precision.base_dtype)
        return make_trainable(model, config)


def give_storage(model: nn.Module) -> None:
    """Fake storage for each parameter and buffer on `meta`; what is shared stays shared. PEFT cannot move fakes."""
    made: dict[int, Tensor] = {}

    def made_once(old: Tensor) -> Tensor:
        if id(old) not in made:
            new = torch.empty(old.shape, dtype=old.dtype)
            made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        return made[id(old)]

    tables: list[dict[str, Any]] = []
    for module in model.modules():
        tables += [module._parameters, module._buffers]
    for table in tables:
        for name, old in table.items():
            if old is not None:
                table[name] = made_once(old)


def fake_pack(lengths: Sequence[int], supervised: float) -> Pack:
    """A pass of examples of these lengths, of whose tokens the share `supervised` is trained on."""
    tokens = sum(lengths)
    ids = torch.zeros(1, tokens, dtype=torch.long)
    # `UnpackedLoss` reads where each example's labels are: real numbers, not fake ones.
    positions = torch.zeros(max(1, round(supervised * tokens)), dtype=torch.long)
    return Pack(ids, torch.zeros(1, tokens, dtype=torch.long), tuple(lengths), positions, positions.clone())


@contextlib.contextmanager
def _context(precision: Precision, device: str) -> Iterator[None]:
    """The run's autocast; PEFT asks whether CUDA's is on to know in which type an adapter computes."""
    with precision.context():
        cuda_autocast = torch.is_autocast_enabled("cuda")
        torch.set_autocast_enabled("cuda", device == "cuda" and precision.autocast is not None)
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", cuda_autocast)


@contextlib.contextmanager
def _as_on(device: str) -> Iterator[None]:
    """For `cuda`, attention and dropout take the path inside that they would take on a GPU since Ampere."""
    if device != "cuda":
        yield
        return
    import torch.nn.attention.varlen as varlen

    @functools.wraps(varlen.varlen_attn)
    def kernel(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
        return flash_attention(query, key, value)

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return torch.native_dropout(input, p, training)[0]

    def works(query: Tensor) -> bool:
        return query.dtype == torch.bfloat16 and query.shape[-1] <= 256

    with (
        unittest.mock.patch.object(attention, "_varlen_works", works),
        unittest.mock.patch.object(varlen, "varlen_attn", kernel),
        unittest.mock.patch.object(F, "dropout", dropout),
        unittest.mock.patch.object(fast_layers, "fused_norm", fused_norm),
    ):
        yield


def _casts_end_with_recomputing(model: PreTrainedModel) -> None:
    """On CUDA the backward pass runs in a thread of autograd's own. Recomputing a layer there opens and closes
    autocast from the outermost level, which drops every copy of a weight that autocast had kept; in one thread with the
    forward pass, as here, it would not."""
    backbone = model.get_decoder()
    state = {"forward": False}

    def begin(*_: object) -> None:
        state["forward"] = True

    def end(*_: object) -> None:
        state["forward"] = False

    def recomputing(*_: object) -> None:
        # At its beginning, since recomputing stops as soon as the last tensor it needs is there.
        if not state["forward"]:
            torch.clear_autocast_cache()

    backbone.register_forward_pre_hook(begin)
    backbone.register_forward_hook(end)
    for layer in getattr(backbone, "layers", ()):
        next(layer.children()).register_forward_pre_hook(recomputing)  # the layer's own hooks are not run again


def _stepper(model: nn.Module, parameters: Sequence[Tensor], config: RunConfig) -> Any:
    """One optimizer step that ends with the gradients gone.

    bitsandbytes' 8-bit moments are only allocated: its kernels work in place.
    """
    if config.optim.name == "adamw":
        optimizer = make_optimizer(model, config.optim)

        def step() -> None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step
    moments: list[Tensor] = []
    paged = config.optim.name == "paged_adamw8bit"

    def step_in_8_bits() -> None:
        first = not moments
        for parameter in parameters:
            if first:
                moments.extend(_moments_in_8_bits(parameter, paged))
            parameter.grad = None

    return step_in_8_bits


def _moments_in_8_bits(parameter: Tensor, paged: bool) -> list[Tensor]:
    count = parameter.numel()
    if count < 4096:
        return [torch.zeros(count, dtype=torch.float32) for _ in range(2)]
    blocks = [torch.zeros(-(-count // 256), dtype=torch.float32) for _ in range(2)]
    if paged and count >= _PAGED_FROM:
        return blocks
    return blocks + [torch.zeros(count, dtype=torch.uint8) for _ in range(2)]


def main() -> int:
    """Answer the request on stdin; returns the exit code."""
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
