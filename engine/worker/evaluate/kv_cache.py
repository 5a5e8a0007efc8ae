"""The KV cache of the answers being written, in buffers that rows join and leave while others go on.

All rows end at the same column: a prompt of p tokens that joins when the others stand at column `end` is put into the
columns end - p to end, so that one write per layer serves every row, and positions count from each row's own start. A
row that is done leaves by the last row taking its place. Nothing is ever computed for a row that has ended, and only
the columns from the earliest start on are read.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

_SLACK_COLUMNS = 64
"""Columns beyond what a row needs: so many steps pass before the buffers must be moved back to their beginning."""


def columns(longest: int, new: int) -> int:
    """How many columns the buffers have, for prompts of at most `longest` tokens with at most `new` to be written."""
    return longest + new + _SLACK_COLUMNS


class KVCache(Cache):
    """`capacity` rows of prompts of at most `longest` tokens, each with at most `new` tokens to be written."""

    def __init__(self, capacity: int, longest: int, new: int) -> None:
        super().__init__(layers=[])
        self._layers: list[_KVCacheLayer] = []
        """`layers`, by the type they have here; made when the first prompts join."""
        self.capacity = capacity
        self.longest = longest
        self.columns = columns(longest, new)
        self.rows = 0
        self.end = longest
        self.start = longest
        """The earliest start of a live row."""
        self._starts: list[int] = []

    def join(self, prefilled: DynamicCache, lengths: Sequence[int]) -> None:
        """Add prompts whose keys and values stand end to end in `prefilled`, (1, heads, tokens, head_dim).

        `lengths`: tokens of each prompt, which sum to `tokens`.
        """
        read = [_keys_and_values(layer) for layer in prefilled.layers]
        if not self._layers:
            self._layers = [_KVCacheLayer(self, keys, values) for keys, values in read]
            self.layers = [*self._layers]
        device = self._layers[0].keys.device
        rows = torch.arange(self.rows, self.rows + len(lengths)).repeat_interleave(torch.tensor(lengths))
        columns = torch.cat([torch.arange(self.end - length, self.end) for length in lengths])
        rows, columns = rows.to(device), columns.to(device)
        for layer, (keys, values) in zip(self._layers, read, strict=True):
            layer.keys[rows, :, columns] = keys.transpose(0, 1)
            layer.values[rows, :, columns] = values.transpose(0, 1)
        self._starts += [self.end - length for length in lengths]
        self.rows += len(lengths)
        self.start = min(self._starts)

    def advance(self) -> None:
        """After a forward pass has written column `end` of every row. At the last column all move back."""
        self.end += 1
        if self.end == self.columns:
            width = self.end - self.start
            shift = self.end - max(self.longest, width)
            for layer in self._layers:
                for buffer in (layer.keys, layer.values):
                    window = buffer[: self.rows, :, self.start : self.end].clone()  # the two may overlap
                    buffer[: self.rows, :, self.start - shift : self.end - shift] = window
            self._starts = [start - shift for start in self._starts]
            self.start, self.end = self.start - shift, self.end - shift

    def keep(self, kept: Sequence[int]) -> list[int]:
        """Drop all rows but these, ascending; returns the kept ones in the order they stand in from now on."""
        rows = len(kept)
        holes = sorted(set(range(rows)) - set(kept))
        movers = [row for row in kept if row >= rows]
        if holes:
            to, origin = (torch.tensor(rows, device=self._layers[0].keys.device) for rows in (holes, movers))
            for layer in self._layers:
                for buffer in (layer.keys, layer.values):
                    buffer[to, :, self.start : self.end] = buffer[origin, :, self.start : self.end]
        order = list(range(rows))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        self._starts = [self._starts[row] for row in order]
        self.rows = rows
        self.start = min(self._starts, default=self.end)
        return order

    def mask(self) -> Tensor:
        """int64, shape (rows, columns read in the next pass): 1 where a row has a token, the one to come included."""
        device = self._layers[0].keys.device
        starts = torch.tensor(self._starts, device=device)[:, None]
        return (torch.arange(self.start, self.end + 1, device=device) >= starts).long()

    def positions(self) -> Tensor:
        """int64, shape (rows, 1): of the token to come in each row."""
        return torch.tensor([[self.end - start] for start in self._starts], device=self._layers[0].keys.device)


def _keys_and_values(layer: Any) -> tuple[Tensor, Tensor]:
    """Of a prefilled layer with one row, each (heads, tokens, head_dim); annotated as any kind of cache layer."""
    return layer.keys[0], layer.values[0]


class _KVCacheLayer(DynamicLayer):
    """One layer's buffers, (capacity, heads, columns, head_dim)."""

    keys: Tensor
    values: Tensor

    def __init__(self, cache: KVCache, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._cache = cache
        # Zeros, since what is masked is still multiplied, by 0: a NaN that happened to lie there would spread.
        self.keys, self.values = (
            t.new_zeros((cache.capacity, t.shape[0], cache.columns, t.shape[2])) for t in (keys, values)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write column `end` of every row, (rows, heads, 1, head_dim); returns the columns to attend to."""
        rows, end = self._cache.rows, self._cache.end
        self.keys[:rows, :, end] = key_states[:, :, 0]
        self.values[:rows, :, end] = value_states[:, :, 0]
        read = slice(self._cache.start, end + 1)
        return self.keys[:rows, :, read], self.values[:rows, :, read]

    def get_seq_length(self) -> int:
        return self._cache.end - self._cache.start
