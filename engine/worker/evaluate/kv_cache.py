"""The keys and values of the answers being written, in buffers that rows join and leave while others go on.

All rows end at the same column: a prompt of p tokens that joins when the others stand at column `end` is put into the
columns end - p to end, so that one write per layer serves every row, and positions count from each row's own start. A
row that is done leaves by the last row taking its place. Nothing is ever computed for a row that has ended, and only
the columns from the earliest start on are read.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

_SLACK_COLUMNS = 64
"""Columns beyond those one row needs: so many steps pass before the buffers must be moved back to their beginning."""


def columns(longest: int, new: int) -> int:
    """Of the buffers, for prompts of at most `longest` tokens with at most `new` to be written."""
    return longest + new + _SLACK_COLUMNS


class KVCache(Cache):
    """`capacity` rows of prompts of at most `longest` tokens, each with at most `new` tokens to be written."""

    def __init__(self, capacity: int, longest: int, new: int) -> None:
        super().__init__(layers=[])
        self.capacity = capacity
        self.longest = longest
        self.columns = columns(longest, new)
        self.rows = 0
        self.end = longest
        self.start = longest
        """The earliest start of a live row."""
        self._starts: list[int] = []

    def join(self, prefilled: DynamicCache, lengths: Sequence[int]) -> None:
        """Take in prompts whose keys and values stand end to end in `prefilled`, (1, heads, tokens, head_dim)."""
        if not self.layers:
            shapes = [(layer.keys[0], layer.values[0]) for layer in prefilled.layers]
            self.layers = [_KVCacheLayer(self, *shape) for shape in shapes]
        device = self.layers[0].keys.device
        rows = torch.arange(self.rows, self.rows + len(lengths)).repeat_interleave(torch.tensor(lengths))
        columns = torch.cat([torch.arange(self.end - length, self.end) for length in lengths])
        rows, columns = rows.to(device), columns.to(device)
        for mine, theirs in zip(self.layers, prefilled.layers, strict=True):
            mine.keys[rows, :, columns] = theirs.keys[0].transpose(0, 1)
            mine.values[rows, :, columns] = theirs.values[0].transpose(0, 1)
        self._starts += [self.end - length for length in lengths]
        self.rows += len(lengths)
        self.start = min(self._starts)

    def advance(self) -> None:
        """After a forward pass has written column `end` of every row. At the last column all move back."""
        self.end += 1
        if self.end == self.columns:
            width = self.end - self.start
            shift = self.end - max(self.longest, width)
            for layer in self.layers:
                for buffer in (layer.keys, layer.values):
                    window = buffer[: self.rows, :, self.start : self.end].clone()  # the two may overlap
                    buffer[: self.rows, :, self.start - shift : self.end - shift] = window
            self._starts = [start - shift for start in self._starts]
            self.start, self.end = self.start - shift, self.end - shift

    def keep(self, kept: Sequence[int]) -> list[int]:
        """Only these rows, ascending; returns them in the order they stand in from now on."""
        rows = len(kept)
        holes = sorted(set(range(rows)) - set(kept))
        movers = [row for row in kept if row >= rows]
        if holes:
            to, origin = (torch.tensor(one, device=self.layers[0].keys.device) for one in (holes, movers))
            for layer in self.layers:
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
        device = self.layers[0].keys.device
        starts = torch.tensor(self._starts, device=device)[:, None]
        return (torch.arange(self.start, self.end + 1, device=device) >= starts).long()

    def positions(self) -> Tensor:
        """int64, shape (rows, 1): of the token to come in each row."""
        return torch.tensor([[self.end - start] for start in self._starts], device=self.layers[0].keys.device)


class _KVCacheLayer(DynamicLayer):
    """One layer's buffers, (capacity, heads, columns, head_dim)."""

    def __init__(self, slots: KVCache, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._slots = slots
        # Zeros, since what is masked is still multiplied, by 0: a NaN that happened to lie there would spread.
        self.keys, self.values = (
            t.new_zeros((slots.capacity, t.shape[0], slots.columns, t.shape[2])) for t in (keys, values)
        )
        self.is_initialized = True

    def update(self, keys: Tensor, values: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        slots = self._slots
        self.keys[: slots.rows, :, slots.end] = keys[:, :, 0]
        self.values[: slots.rows, :, slots.end] = values[:, :, 0]
        read = slice(slots.start, slots.end + 1)
        return self.keys[: slots.rows, :, read], self.values[: slots.rows, :, read]

    def get_seq_length(self) -> int:
        return self._slots.end - self._slots.start
