"""How torch is to compute in this process: threads, determinism, memory."""

import contextlib
import ctypes
import os

import torch

from engine.base.worker_process import cores
from engine.settings.schema import RunConfig


def set_up_torch(config: RunConfig, device: torch.device, ranks: int = 1) -> None:
    """Threads and determinism. On the CPU a run always repeats bit for bit; on a GPU with train.deterministic.

    `ranks`: how many processes share the cores.
    """
    threads = config.train.threads or threads_of_environment() or max(1, cores() // ranks)
    torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cpu" or config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Meant for debugging: every new tensor would first be filled with NaN.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # made at run time


def threads_of_environment() -> int:
    """OMP_NUM_THREADS, which the daemon sets where several CPU runs share the cores; 0 where it is not set."""
    omp_threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(omp_threads) if omp_threads.isdecimal() else 0


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of giving each back to the system: a tenth faster, since the pages of
    logits and gradients need not be mapped and cleared again in every step. No effect with other C libraries.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of mallopt(3)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
