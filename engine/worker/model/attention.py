"""Attention inside each example of a packed stream, through transformers' public AttentionInterface.

While a pack is set by `packed`, every attention layer sees the stream cut at the example borders: by torch's own
variable-length kernel on CUDA, by one SDPA call per group of equally long neighbours elsewhere. Without a pack (when
generating, or in the plain path) it is transformers' own SDPA with its own mask.
"""

import contextlib
import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from engine.base.errors import ModelError

NAME = "finetop"


class _Stream:
    """The examples of the current pack, and what attention derives from their lengths once for all layers."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.tokens = sum(lengths)
        self.longest = max(lengths)
        self.groups = [(length, len(list(same))) for length, same in itertools.groupby(lengths)]
        self._lengths = lengths
        self._borders: Tensor | None = None

    def borders(self, device: torch.device) -> Tensor:
        """int32, shape (examples + 1,): where each example starts, and the end of the last."""
        if self._borders is None:
            ends = torch.tensor(self._lengths).cumsum(0, dtype=torch.int32)
            self._borders = F.pad(ends, (1, 0)).to(device)
        return self._borders


# A module global, not a context variable: activation checkpointing runs layers again in autograd's own threads.
_stream: _Stream | None = None


@contextlib.contextmanager
def packed(lengths: Sequence[int]) -> Iterator[None]:
    """Within it, every model's stream is examples of these lengths. Must enclose forward and backward pass."""
    global _stream
    outer, _stream = _stream, _Stream(lengths)
    try:
        yield
    finally:
        _stream = outer


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention: query, key, value (1, heads, tokens, head_dim) -> (1, tokens, heads, head_dim)."""
    if kwargs.get("s_aux") is not None:
        raise ModelError("its attention has sinks, which finetop's own has not")
    if _stream is None or query.shape[2] != _stream.tokens:
        if softcap is not None:
            return _softcapped(query, key, value, attention_mask, scaling, softcap), None
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    if attention_mask is not None and sliding_window is None:
        raise ModelError(
            "a layer of this model limits its attention in a way the packed path does not know",
            "Train it one example a pass: --set model.attention=plain",
        )
    if torch.is_autocast_enabled(query.device.type):
        # Where trained weights are float32, so are queries and keys once the rotary embedding has been added. Autocast
        # narrows them for torch's own attention, but does not know the kernel for variable lengths.
        narrow = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(narrow), key.to(narrow), value.to(narrow)
    if softcap is None and dropout == 0.0 and _varlen_works(query):
        return _varlen(_stream, query, key, value, scaling, sliding_window), None
    sizes = [length * count for length, count in _stream.groups]
    streams = (t.split(sizes, dim=2) for t in (query, key, value))  # split, since slices have a slow backward pass
    outputs = []
    for (length, count), *parts in zip(_stream.groups, *streams, strict=True):
        q, k, v = (part[0].unflatten(1, (count, length)).transpose(0, 1) for part in parts)
        out = _one_length(q, k, v, scaling, dropout, sliding_window, softcap)  # (count, length, heads, head_dim)
        outputs.append(out.reshape(1, count * length, *out.shape[2:]))
    return torch.cat(outputs, dim=1), None


def _one_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    dropout: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention of equally long examples: (count, heads, length, head_dim) -> (count, length, heads, head_dim)."""
    length = query.shape[2]
    mask = None
    if softcap is not None or (window is not None and length > window):
        mask = causal_mask(length, window, query.device)
    if softcap is not None:
        return _softcapped(query, key, value, mask, scaling, softcap)
    if key.shape[1] != query.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None and length > 1, scale=scaling
    )
    return out.transpose(1, 2)


def causal_mask(length: int, window: int | None, device: torch.device) -> Tensor:
    """bool, shape (length, length): True where a token may look; with a window, only so many back, itself included."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < (window or length))


def _softcapped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Tensor:
    """Attention whose scores pass through softcap * tanh(x / softcap), as Gemma 2 (arXiv 2408.00118) has it."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        mask = causal_mask(query.shape[2], None, query.device)
    scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return (torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value).transpose(1, 2)


def _varlen_works(query: Tensor) -> bool:
    """torch's variable-length kernel is flash attention: CUDA, Ampere or newer, half precision, heads up to 256."""
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _varlen(
    stream: _Stream, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {}
    if key.shape[1] != query.shape[1]:
        if "enable_gqa" in inspect.signature(varlen_attn).parameters:  # newer than torch 2.11
            options["enable_gqa"] = True
        else:
            repeats = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    borders = stream.borders(query.device)
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))  # (tokens, heads, head_dim)
    back = window - 1 if window is not None and window < stream.longest else -1
    longest = stream.longest
    out: Any = varlen_attn(q, k, v, borders, borders, longest, longest, scale=scaling, window_size=(back, 0), **options)
    return out[None]  # a tensor: nothing else was to be returned beside it


def _mask(*args: Any, local_size: int | None = None, **kwargs: Any) -> Tensor | None:
    """In a pack, only a sign of local attention shorter than an example: most layers also pass their window
    themselves, the others are refused by `attention_forward`."""
    if _stream is None:
        kwargs["local_size"] = local_size
        return sdpa_mask(*args, **kwargs)
    return torch.tensor(local_size) if local_size is not None and local_size < _stream.longest else None


def register() -> None:
    """Make `attn_implementation=NAME` known to transformers."""
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, _mask)
