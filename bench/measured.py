"""Run a command and measure what it took from the outside: peak memory, seconds, exit code.

Peak memory is the kernel's own record for that process and the children it waited for (`ru_maxrss` as `wait4` hands it
over). A child's record starts at the size its parent had when it forked, so whoever measures must stay small: nothing
on this side imports torch.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_GPU_SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Measured:
    code: int
    """Exit code; negative: the signal that ended it."""
    started: float
    """Epoch seconds."""
    seconds: float
    peak_rss_bytes: int
    peak_gpu_bytes: int | None
    """Highest use of the whole card while it ran, less what was in use before; None without a GPU."""


def run_measured(
    command: list[str], env: dict[str, str], log: Path, timeout: float, cpus: set[int] | None, gpu: bool
) -> Measured:
    """Runs `command` with its output in `log`, on `cpus` only; kills its whole group after `timeout` seconds."""
    memory = _GpuMemory() if gpu else contextlib.nullcontext()
    with memory, open(log, "wb") as output:
        started, clock = time.time(), time.monotonic()
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, cpus)
        killer = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
        killer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            killer.cancel()
        seconds = time.monotonic() - clock
        process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    kilobyte = 1024 if os.uname().sysname == "Linux" else 1  # macOS counts in bytes
    return Measured(
        process.returncode, started, seconds, usage.ru_maxrss * kilobyte, memory.peak_bytes if gpu else None
    )


class _GpuMemory:
    """Samples the first card's memory in use; the same for every engine, CUDA context and allocator caches included."""

    def __enter__(self) -> "_GpuMemory":
        import pynvml

        pynvml.nvmlInit()
        self._nvml = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self._before = self._used()
        self.peak_bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _used(self) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def _watch(self) -> None:
        while not self._over.wait(_GPU_SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._used() - self._before)
