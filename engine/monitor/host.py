"""Processor, memory and disk of the machine (psutil)."""

import os
import time
from pathlib import Path

import psutil

from engine.base.control_groups import groups_of, memory_limits
from engine.base.worker_process import cores
from engine.monitor.samples import DiskSample, HostSample

_Counters = tuple[float, int, int]
"""`monotonic()`, bytes read, bytes written."""


class HostReader:
    """Processor, memory, swap. Shares are since the last read."""

    def __init__(self) -> None:
        self._groups, self._cpu_groups = groups_of("memory"), groups_of("cpu")
        self._times = psutil.cpu_times()
        self._read_before = False

    def read(self) -> HostSample:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        limits = [limit for limit in memory_limits(self._groups) if limit.limit_bytes < memory.total]
        least = min(limits, key=lambda limit: limit.limit_bytes, default=None)
        return HostSample(
            taken_at=time.time(),
            cpu_percent=self._cpu_percent(),
            cpu_count=cores(self._cpu_groups),
            load_1min=os.getloadavg()[0],
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            memory_limit_bytes=least.limit_bytes if least else None,
            memory_limit_owner=least.owner if least else None,
            memory_limit_used_bytes=least.used_bytes if least else None,
            memory_free_bytes=min([memory.available, *(limit.free_bytes for limit in limits)]),
            swap_used_bytes=swap.used,
            swap_total_bytes=swap.total,
        )

    def _cpu_percent(self) -> float | None:
        previous, now = self._times, psutil.cpu_times()
        total = _total(now) - _total(previous)
        if total <= 0:
            return None
        self._times = now
        return round(max(0.0, min(100.0, 100.0 * (1.0 - (_idle(now) - _idle(previous)) / total))), 1)


def _total(times) -> float:
    # guest time is already inside user and nice (Linux, proc_stat(5))
    return sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)


def _idle(times) -> float:
    return times.idle + getattr(times, "iowait", 0.0)


class DiskReader:
    """Space and rates of the disk under one folder; on a dead network mount it may never come back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._device: str | None = None
        self._found = False
        self._previous: _Counters | None = None

    def read(self) -> DiskSample:
        if not self._found:
            self._device, self._found = _block_device(self._path), True
        space = os.statvfs(self._path)
        reads, writes = self._rates()
        return DiskSample(
            path=str(self._path),
            taken_at=time.time(),
            device=self._device,
            free_bytes=space.f_bavail * space.f_frsize,
            total_bytes=space.f_blocks * space.f_frsize,
            read_bytes_per_s=reads,
            write_bytes_per_s=writes,
        )

    def _rates(self) -> tuple[float | None, float | None]:
        if self._device is None:
            return None, None
        mine = psutil.disk_io_counters(perdisk=True, nowrap=False).get(self._device)
        if mine is None:
            return None, None
        previous, now = self._previous, (time.monotonic(), mine.read_bytes, mine.write_bytes)
        self._previous = now
        return _per_second(previous, now)


def _block_device(path: Path) -> str | None:
    """The kernel's name of the disk under `path`, through its device number or, for btrfs, its mount source."""
    try:
        number = os.stat(path).st_dev
        link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
        if link.exists():
            return link.resolve().name
        mounts = [p for p in psutil.disk_partitions(all=False) if path.resolve().is_relative_to(p.mountpoint)]
        source = max(mounts, key=lambda p: len(p.mountpoint)).device
        return Path(source).resolve().name if source.startswith("/dev/") else None
    except (OSError, ValueError):
        return None


def _per_second(previous: _Counters | None, now: _Counters) -> tuple[float | None, float | None]:
    if previous is None or now[0] <= previous[0]:
        return None, None
    seconds = now[0] - previous[0]
    return max(0.0, (now[1] - previous[1]) / seconds), max(0.0, (now[2] - previous[2]) / seconds)
