"""Run a command and measure what it took from the outside: peak memory, seconds, exit code.

Peak memory is the kernel's own record for that process and the children it waited for (`ru_maxrss` as `wait4` hands it
over). A child's record starts at the size its parent had when it forked, so whoever measures must stay small: nothing
on this side imports torch.
"""

import contextlib
import os
import platform
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
    others_cores: float | None
    """Cores that everything else on the machine kept busy meanwhile; a timing counts only when it is near 0. (The load
    average would not do: it still holds the run before.) None where /proc/stat is not to be had."""


def run_measured(
    command: list[str], env: dict[str, str], log: Path, timeout: float, cpus: set[int] | None, gpu: bool
) -> Measured:
    """Runs `command` with its output in `log`, on `cpus` only; kills its whole group after `timeout` seconds."""
    memory = _GpuMemory() if gpu else contextlib.nullcontext()
    with memory, open(log, "wb") as output:
        started, clock, busy = time.time(), time.monotonic(), busy_seconds()
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
        others = None if busy is None else busy_seconds() - busy - usage.ru_utime - usage.ru_stime
        process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    kilobyte = 1024 if os.uname().sysname == "Linux" else 1  # macOS counts in bytes
    return Measured(
        code=process.returncode,
        started=started,
        seconds=seconds,
        peak_rss_bytes=usage.ru_maxrss * kilobyte,
        peak_gpu_bytes=memory.peak_bytes if gpu else None,
        others_cores=None if others is None else max(0.0, others / seconds),
    )


def busy_seconds() -> float | None:
    """Seconds that all cores together have spent on anything since the machine started."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
