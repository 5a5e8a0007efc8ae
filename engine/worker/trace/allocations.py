"""Counting the memory of tensors: every storage from the operation that makes it until nothing refers to it.

Works on real tensors and on fake ones alike. What an operation allocates and frees inside itself is not counted: for
PyTorch's own kernels that is small beside what they return.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA_BLOCK = 512
"""Bytes that PyTorch's CUDA allocator rounds each request up to."""


class Allocations(TorchDispatchMode):
    """While it is entered: `now` bytes live, `peak` at the most. A storage made before it counts once it is used."""

    def __init__(self, block: int = 1) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._block = block
        self._live: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return out

    def count(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, if it is not counted yet, until it is released."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._live:
            return
        size = -(-storage.nbytes() // self._block) * self._block

        def gone(_: Any) -> None:
            if self._live.pop(key, None) is not None:
                self.now -= size

        self._live[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

    @contextmanager
    def phase(self, peaks: dict[str, int], name: str) -> Iterator[None]:
        """Puts the highest mark of what happens inside into `peaks`; a phase named twice keeps the higher."""
        self.peak = self.now
        yield
        peaks[name] = max(peaks.get(name, 0), self.peak)
