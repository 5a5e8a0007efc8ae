"""What a forward pass may take of a device: the worker keeps to these limits, and the plan reckons with them."""

from pathlib import Path

CPU_TOKENS = 4096
"""The most tokens in a pass on the CPU: larger passes gain nothing, and memory is shared with everything else."""
ENOUGH_TOKENS = 2048
"""Tokens in a pass that keep a GPU busy; more gains little."""
GPU_SHARE = 0.9
"""Share of the card's memory, but for what other processes hold, that a pass may take; what is left is for
fragmentation and evaluation."""
HOST_SHARE = 0.9
"""Share of the host's memory, or of its limit, that a run on the CPU may take: daemon and screen live there, too."""
LOGITS_BUDGET_BYTES = 2**30
"""float32 logits of one chunk. Larger than this, they are computed in chunks and again in the backward pass."""

ANSWER_CACHE_BYTES = {"cpu": 2**30, "cuda": 2 * 2**30}
"""Keys and values of the answers that an engine writes at a time; more rows than fit take their turn."""
ANSWER_ROWS = 64
"""Answers that an engine writes at a time."""
PREFILL_TOKENS = 4096
"""Prompt tokens that are read in one pass."""
MOST_ADAPTERS = 16
"""That are kept in memory over one base."""


def cpu_is_good_at_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16 (AMX or AVX512-BF16), by the kernel's list of what it can."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8", "replace").split("flags", 1)[-1].split("\n", 1)[0].split()
    except OSError:
        return False
    return bool({"amx_tile", "avx512_bf16"} & set(flags))
