"""Matrix products of linear layers on the CPU by oneDNN instead of MKL: same precision, about twice the rate.

MKL, behind `torch.mm`, uses no AVX-512 on processors that are not Intel's; oneDNN does. Measured on an AMD EPYC with 2
threads in float32: 465 against 210 Gflop/s for (1930, 256) x (256, 768). oneDNN makes a kernel for each new shape,
which takes about half a millisecond and is remembered: small products stay with MKL.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEAST_FLOP = 64_000_000
"""A product below this takes MKL less than 0.3 ms."""
_LARGEST_TRANSPOSED = 4_000_000
"""Numbers. oneDNN's product wants rows; for the weights' gradient both sides are transposed by a copy first, which pays
while the copy stays in the cache."""


def use_onednn(model: nn.Module) -> int:
    """Give every float32 linear layer of the model, PEFT's too, the faster product. Returns how many; 0 where this
    machine would gain nothing (not a CPU with AVX-512, or torch was built without oneDNN).
    """
    if not (torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"):
        return 0
    changed = 0
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu":
            layer: Any = module  # of which a method is replaced
            layer.forward = _forward_of(module)
            changed += 1
    return changed


def _forward_of(module: nn.Linear) -> Any:
    def forward(x: Tensor) -> Tensor:
        weight = module.weight
        worth = 2 * x.numel() * weight.shape[0] >= _LEAST_FLOP
        if worth and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
            return _Linear.apply(x, weight, module.bias)
        return F.linear(x, weight, module.bias)

    return forward


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, x_rows = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = _product(rows, weight.t()).view(x.shape)
        if ctx.needs_input_grad[1]:
            small = max(rows.numel(), x_rows.numel()) <= _LARGEST_TRANSPOSED
            to_weight = _product(rows.t(), x_rows.t()) if small else rows.t() @ x_rows
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(0)
        return to_x, to_weight, to_bias


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias: (..., in), (out, in), (out,) -> (..., out)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
