"""Examples as a packed stream of tokens, the order they come in, and how a step is cut into forward passes.

The order is a pure function of (seed, epoch): nothing is drawn from a global random state, so a resumed run needs only
its step number to go on. A forward pass holds whole examples end to end; nothing is padded or dropped.
"""

import bisect
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenSet:
    """Tokenised examples, end to end. Example i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray
    """int32, shape (tokens,)."""
    loss_mask: np.ndarray
    """bool, shape (tokens,): the loss is taken on this token. Never the first of an example: nothing predicts it."""
    offsets: np.ndarray
    """int64, shape (examples + 1,)."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64, shape (examples,)."""
        return np.diff(self.offsets)

    @functools.cached_property
    def label_tokens(self) -> np.ndarray:
        """Trained tokens of each example, int64, shape (examples,)."""
        running = np.concatenate(([0], np.cumsum(self.loss_mask, dtype=np.int64)))
        return running[self.offsets[1:]] - running[self.offsets[:-1]]

    def example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Its (ids, trained)."""
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.ids[span], self.loss_mask[span]

    def digest(self) -> str:
        """32 hex digits that identify its content: tokens, loss mask, and where examples begin."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.ids, self.loss_mask, self.offsets):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def largest_step(self, examples: int) -> int:
        """Tokens of so many of the longest examples: no optimizer step of that size has more."""
        return int(np.sort(self.lengths)[::-1][:examples].sum())

    @staticmethod
    def join(examples: Sequence[tuple[Any, ...]]) -> "TokenSet":
        """From (ids, trained, ...) of each; clears the first token's mark of each."""
        offsets = np.zeros(len(examples) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids, *_ in examples], out=offsets[1:])
        ids = np.concatenate([ids for ids, *_ in examples] or [np.zeros(0)]).astype(np.int32)
        loss_mask = np.concatenate([loss_mask for _, loss_mask, *_ in examples] or [np.zeros(0)]).astype(bool)
        loss_mask[offsets[:-1]] = False
        return TokenSet(ids, loss_mask, offsets)


@dataclass(frozen=True)
class Pack:
    """One forward pass: whole examples end to end as a batch of one row."""

    input_ids: Tensor
    """int64, shape (1, tokens)."""
    position_ids: Tensor
    """int64, shape (1, tokens): starts from 0 in every example."""
    lengths: tuple[int, ...]
    """Tokens of each example; they sum to `tokens`."""
    label_positions: Tensor
    """int64, shape (supervised,): positions whose next token is trained."""
    targets: Tensor
    """int64, shape (supervised,): those next tokens."""

    def to(self, device: torch.device) -> "Pack":
        """The same on another device."""
        if device.type == "cpu":
            return self
        moved = (self.input_ids, self.position_ids, self.label_positions, self.targets)
        ids, positions, label_positions, targets = (t.pin_memory().to(device, non_blocking=True) for t in moved)
        return Pack(ids, positions, self.lengths, label_positions, targets)


def epoch_order(examples: int, seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
    """The order of the examples in one epoch (counted from 0), int64, shape (examples,)."""
    if not shuffle:
        return np.arange(examples)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch]))).permutation(examples)


def plan_passes(indices: np.ndarray, lengths: np.ndarray, micro_tokens: int) -> list[np.ndarray]:
    """Group examples into passes of at most `micro_tokens` tokens: best-fit decreasing (Johnson 1973).

    An example longer than `micro_tokens` makes a pass of its own. Within a pass the longest come first, so that
    examples of equal length are neighbours.
    """
    by_length = indices[np.argsort(-lengths[indices], kind="stable")]
    passes: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (free tokens, number of the pass), ascending
    for index in by_length:
        length = int(lengths[index])
        fit = bisect.bisect_left(rooms, (length, 0))
        room, number = rooms.pop(fit) if fit < len(rooms) else (micro_tokens, len(passes))
        if number == len(passes):
            passes.append([])
        passes[number].append(int(index))
        bisect.insort(rooms, (room - length, number))
    return [np.array(group, dtype=np.int64) for group in passes]


def make_pack(tokens: TokenSet, indices: np.ndarray) -> Pack:
    """The examples `indices` (int64) end to end, on the CPU."""
    examples = [tokens.example(i) for i in indices]
    lengths = tuple(len(ids) for ids, _ in examples)
    ids = torch.from_numpy(np.concatenate([ids for ids, *_ in examples])).long()
    loss_mask = np.concatenate([loss_mask for _, loss_mask, *_ in examples])
    positions = np.concatenate([np.arange(length) for length in lengths])
    # An example's first token is never trained, so no position predicts across a border.
    target_at = torch.from_numpy(np.flatnonzero(loss_mask))
    return Pack(ids[None], torch.from_numpy(positions)[None], lengths, target_at - 1, ids[target_at])
