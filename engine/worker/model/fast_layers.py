"""Layers of a loaded model made faster without a change of what they compute: LoRA and RMS norms on a GPU, linear
layers on a CPU (`linear`).

A small model's step on a GPU is as long as it takes Python to launch its kernels. PEFT's LoRA layer launches some
thirty, forward and backward, half of them casts between the adapter's float32 and the arithmetic's bfloat16; here they
are nine. It also keeps its input three times for the backward pass, in two types; here once, and not again where the
query, the key and the value share it. (Unsloth's kernels do likewise: github.com/unslothai/unsloth.)
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.worker.model.linear import use_onednn


def use_fast_layers(model: nn.Module) -> None:
    """Give the model's layers the fastest forward pass this machine has for them. Call it once, on a loaded model."""
    use_onednn(model)
    if any(parameter.is_cuda for parameter in model.parameters()):
        fuse_layers(model)


def fuse_layers(model: nn.Module) -> None:
    """What is done to a model on a GPU: LoRA layers and norms."""
    fuse_lora(model)
    fuse_norms(model)


def fuse_lora(model: nn.Module) -> int:
    """Replace the forward pass of PEFT's LoRA layers on linear ones; returns how many.

    A layer goes back to PEFT's own wherever it is asked for more than one plain adapter: several at once, none, one
    that is merged, DoRA, dropout.
    """
    layers: list[Any] = [m for m in model.modules() if isinstance(m, LoraLayer) and _is_linear(m.get_base_layer())]
    for layer in layers:
        layer.forward = _lora_forward(layer, layer.forward)
    return len(layers)


def _is_linear(layer: nn.Module) -> bool:
    """A linear layer or a quantized one, whose input and output are not cast on the way."""
    return type(layer) is nn.Linear or any(kind.__name__ == "Linear4bit" for kind in type(layer).__mro__)


def _lora_forward(layer: Any, original: Any) -> Any:
    base = layer.get_base_layer()
    dense = type(base) is nn.Linear

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = _plain_adapter(layer)
        if name is None or args or kwargs:
            return original(x, *args, **kwargs)
        down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        if dense and base.weight.dtype == dtype and (dtype == down.dtype or torch.is_autocast_enabled(kind)):
            return _LoraLinear.apply(x, down, up, layer.scaling[name], base.weight, base.bias, None)
        if not dense and x.dtype == dtype:
            return _LoraLinear.apply(x, down, up, layer.scaling[name], None, None, layer.base_layer(x))
        return original(x)

    return forward


def _plain_adapter(layer: Any) -> str | None:
    """The one adapter that is at work in a PEFT layer, where nothing else is asked of it than its product."""
    active = layer.active_adapters
    if layer.disable_adapters or layer.merged or len(active) != 1:
        return None
    (name,) = active
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_bias.get(name):
        return None
    dropout = layer.lora_dropout[name]
    return None if layer.training and not isinstance(dropout, nn.Identity) and dropout.p else name


class _LoraLinear(torch.autograd.Function):
    """x weight^T + bias + scale (x down^T) up^T: (..., in), (r, in), (out, r), (out, in), (out,) -> (..., out).

    `weight` is frozen; without one, `base_output` is the base layer's (..., out). The arithmetic is in the type of
    either, the gradients of `down` and `up` in theirs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        down: Tensor,
        up: Tensor,
        scale: float,
        weight: Tensor | None,
        bias: Tensor | None,
        base_output: Tensor | None,
    ) -> Tensor:
        like: Any = weight if weight is not None else base_output
        rows = x.reshape(-1, x.shape[-1]).to(like.dtype)
        down_cast, up_cast = down.to(like.dtype), up.to(like.dtype)
        hidden = rows @ down_cast.t()
        if base_output is None:
            output = F.linear(rows, like, bias).addmm_(hidden, up_cast.t(), alpha=scale)
        else:
            output = torch.addmm(base_output.reshape(-1, base_output.shape[-1]), hidden, up_cast.t(), alpha=scale)
        ctx.save_for_backward(rows, hidden, down_cast, up_cast, weight)
        ctx.scale, ctx.x_dtype, ctx.adapter_dtype = scale, x.dtype, down.dtype
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, down, up, weight = ctx.saved_tensors
        to_output = gradient.reshape(-1, gradient.shape[-1]).to(rows.dtype)
        to_hidden = to_output @ up
        to_x = to_down = to_up = None
        if ctx.needs_input_grad[0]:
            if weight is None:
                to_x = (to_hidden @ down).mul_(ctx.scale)
            else:
                to_x = (to_output @ weight).addmm_(to_hidden, down, alpha=ctx.scale)
            to_x = to_x.view(*gradient.shape[:-1], -1).to(ctx.x_dtype)
        if ctx.needs_input_grad[1]:
            to_down = _product(to_hidden.t(), rows, ctx.adapter_dtype).mul_(ctx.scale)
        if ctx.needs_input_grad[2]:
            to_up = _product(to_output.t(), hidden, ctx.adapter_dtype).mul_(ctx.scale)
        return to_x, to_down, to_up, None, None, None, gradient if ctx.needs_input_grad[6] else None


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left right in `dtype`: on a GPU, a float32 sum is not rounded to the type of the factors on its way."""
    if left.is_cuda and dtype == torch.float32 and left.dtype != dtype:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


def fuse_norms(model: nn.Module) -> int:
    """Replace the forward pass of RMS norms by torch's one kernel, where their class computes what it does; returns how
    many. Gemma's, which scales by 1 + weight, keeps its own.
    """
    plain: dict[type, bool] = {}
    changed = 0
    for module in model.modules():
        eps = getattr(module, "variance_epsilon", None)
        if not (type(module).__name__.endswith("RMSNorm") and isinstance(eps, float)):
            continue
        if type(module) not in plain:
            plain[type(module)] = _is_plain_norm(type(module), eps)
        if plain[type(module)]:
            layer: Any = module  # of which a method is replaced
            layer.forward = _norm_forward(layer, layer.forward)
            changed += 1
    return changed


def _norm_forward(norm: Any, original: Any) -> Any:
    def forward(x: Tensor) -> Tensor:
        if x.dtype != norm.weight.dtype:
            return original(x)
        return fused_norm(x, norm.weight, norm.variance_epsilon)

    return forward


def fused_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    # Not F.rms_norm: under autocast that computes, and returns, float32.
    return torch.ops.aten._fused_rms_norm(x, [x.shape[-1]], weight, eps)[0]


def _is_plain_norm(kind: Any, eps: float) -> bool:
    """Whether a norm of this class gives what torch's kernel gives, tried on the CPU with numbers of all sizes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 64, generator=generator) * torch.logspace(-3, 3, 8)[:, None]
    try:
        with torch.no_grad():
            norm = kind(64, eps).to("cpu", torch.float32)
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            return torch.allclose(fused_norm(x, norm.weight, eps), norm(x), rtol=1e-5, atol=1e-7)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False  # a norm made of something else, or a torch without the kernel
