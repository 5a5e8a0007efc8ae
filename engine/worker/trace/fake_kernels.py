"""Fakes of CUDA kernels for a trace: the same inputs kept, the same outputs and workspace, no arithmetic."""

import math
from typing import Any

import torch
from torch import Tensor, nn

_BLOCK, _ABSMAX_BLOCK = 64, 256
"""NF4's block, and how many of its constants share one of the second level."""


def flash_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(tokens, heads, head_dim) each, in and out, as with `varlen_attn`."""
    return _Flash.apply(query, key, value)


class _Flash(torch.autograd.Function):
    """FlashAttention-2 (Dao 2023, arXiv 2307.08691): keeps inputs, output and one float32 a head and token."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        sums = torch.empty(query.shape[1], query.shape[0], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, sums = ctx.saved_tensors
        workspace = [torch.empty_like(sums), torch.empty(query.shape, dtype=torch.float32)]
        if key.shape[1] != query.shape[1]:  # gradients for each query head, summed afterwards
            workspace += [torch.empty_like(query), torch.empty_like(query)]
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        del workspace
        return gradients


def fused_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(..., hidden), (hidden,) -> (..., hidden), as torch's kernel: keeps its input and one float32 a row."""
    return _Norm.apply(x, weight)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, torch.empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight) if ctx.needs_input_grad[1] else None


def pack_in_four_bits(model: Any, compute: torch.dtype) -> None:
    """What loading in 4 bits does to a transformers model on `meta`: every matrix but the head becomes packed bytes."""
    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child is not head:
                setattr(module, name, _packed(child, compute))
    model.is_loaded_in_4bit = True


def _packed(linear: nn.Linear, compute: torch.dtype) -> nn.Module:
    import bitsandbytes as bnb

    class PackedLinear(bnb.nn.Linear4bit):
        """PEFT and the optimizer see bitsandbytes' class; the weight is a plain parameter of its packed size."""

        def forward(self, x: Tensor) -> Tensor:
            out = _Product.apply(x.to(compute), self.weight, self.in_features, self.out_features)
            return (out if self.bias is None else out + self.bias.to(compute)).to(x.dtype)

    made = PackedLinear.__new__(PackedLinear)
    nn.Module.__init__(made)
    made.in_features, made.out_features, made.compute_dtype = linear.in_features, linear.out_features, compute
    packed: Any = nn.Parameter(torch.empty(math.ceil(linear.weight.numel() / 2), 1, dtype=torch.uint8), False)
    packed.compress_statistics, packed.quant_type = True, "nf4"
    made.weight = packed
    made.bias = linear.bias
    blocks = math.ceil(linear.weight.numel() / _BLOCK)
    made.register_buffer("constants", torch.empty(blocks, dtype=torch.uint8), persistent=False)
    second_level = torch.empty(math.ceil(blocks / _ABSMAX_BLOCK), dtype=torch.float32)
    made.register_buffer("constants_of_constants", second_level, persistent=False)
    made.register_buffer("codes", torch.empty(16 + 256 + 1, dtype=torch.float32), persistent=False)
    return made


class _Product(torch.autograd.Function):
    """bitsandbytes' MatMul4Bit: keeps the packed weight only, and unpacks it in each direction."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, inputs: int, outputs: int) -> Tensor:
        ctx.inputs, ctx.outputs = inputs, outputs
        unpacked = torch.empty(outputs, inputs, dtype=x.dtype)
        out = torch.empty(*x.shape[:-1], outputs, dtype=x.dtype)
        del unpacked
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        unpacked = torch.empty(ctx.outputs, ctx.inputs, dtype=gradient.dtype)
        out = torch.empty(*gradient.shape[:-1], ctx.inputs, dtype=gradient.dtype)
        del unpacked
        return out, None, None, None
