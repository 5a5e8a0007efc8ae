"""What the processes of each run take from the host (psutil)."""

import time
from collections.abc import Mapping

import psutil

from engine.monitor.gpu_processes import START_TOLERANCE_SECONDS, Run, session_of
from engine.monitor.samples import RunId, RunSample

_Reading = tuple[float, float, int, int]
"""`monotonic()`, processor seconds, bytes read, bytes written."""


class RunReader:
    """Processor, memory and disk traffic of each run's processes, dead children's work not included."""

    def __init__(self) -> None:
        self._family = _Family()
        self._processes: dict[int, psutil.Process] = {}
        self._previous: dict[psutil.Process, _Reading] = {}

    def read(self, runs: Mapping[RunId, Run]) -> dict[RunId, RunSample]:
        pids = psutil.pids() if runs else []
        families = self._family.grow(pids, frozenset(pid for pid, _ in runs.values()))
        sessions: dict[int, set[int]] = {}
        for pid in pids:
            sessions.setdefault(session_of(pid) or 0, set()).add(pid)
        seen: dict[psutil.Process, _Reading] = {}
        samples = {}
        for run, (pid, started) in runs.items():
            members = self._members(pid, started, families.get(pid, set()), sessions.get(pid, set()))
            if sample := self._sample(run, members, seen):
                samples[run] = sample
        self._previous = seen
        self._processes = {process.pid: process for process in seen}
        return samples

    def _sample(self, run: RunId, processes: list[psutil.Process], seen: dict) -> RunSample | None:
        cpu = reads = writes = 0.0
        rss = living = 0
        compared = io_known = False
        for process in processes:
            try:
                with process.oneshot():
                    if process.status() == psutil.STATUS_ZOMBIE:
                        continue
                    times, rss_now = process.cpu_times(), process.memory_info().rss
                read, written = _io(process)
            except psutil.Error:
                continue
            living += 1
            rss += rss_now
            now = seen[process] = (time.monotonic(), times.user + times.system, read, written)
            previous = self._previous.get(process)
            if previous is None or now[0] <= previous[0]:
                continue
            seconds, compared = now[0] - previous[0], True
            cpu += 100.0 * (now[1] - previous[1]) / seconds
            if read >= 0 and previous[2] >= 0:
                io_known = True
                reads += (read - previous[2]) / seconds
                writes += (written - previous[3]) / seconds
        if not living:
            return None
        return RunSample(
            run=run,
            taken_at=time.time(),
            processes=living,
            cpu_percent=round(cpu, 1) if compared else None,
            rss_bytes=rss,
            read_bytes_per_s=reads if io_known else None,
            write_bytes_per_s=writes if io_known else None,
        )

    def _members(self, pid: int, started: float | None, family: set[int], session: set[int]) -> list[psutil.Process]:
        worker = self._process(pid)
        if worker is not None:
            if started is not None and abs(worker.create_time() - started) > START_TOLERANCE_SECONDS:
                return []  # the worker is gone and a stranger has its number
            family = family | {pid}
        # a worker that died may leave its session behind
        processes = [self._process(member) for member in sorted(family | session)]
        return [process for process in processes if process is not None]

    def _process(self, pid: int) -> psutil.Process | None:
        remembered = self._processes.get(pid)
        if remembered is not None and remembered.is_running():
            return remembered
        try:
            process = self._processes[pid] = psutil.Process(pid)
            return process
        except psutil.Error:
            self._processes.pop(pid, None)
            return None


def _io(process: psutil.Process) -> tuple[int, int]:
    """Bytes that went to and came from disks; -1 where the system does not tell (macOS, another user's process)."""
    try:
        counters = process.io_counters()
    except (psutil.AccessDenied, AttributeError):
        return -1, -1
    return counters.read_bytes, counters.write_bytes


class _Family:
    """Who descends from which worker, remembered, so that a process whose parent has died stays in the family.

    Only processes that are new since the last look are asked for their parent: reading all parents of a busy machine
    every second would cost 5 to 10% of a core (measured with 1000 processes).
    """

    def __init__(self) -> None:
        self._workers: frozenset[int] = frozenset()
        self._parent: dict[int, int] = {}
        self._worker_of: dict[int, int] = {}

    def grow(self, pids: list[int], workers: frozenset[int]) -> dict[int, set[int]]:
        if workers != self._workers:
            self._workers, self._parent = workers, {}
            self._worker_of = {pid: worker for pid, worker in self._worker_of.items() if worker in workers}
        alive = set(pids)
        new = alive - self._parent.keys()
        for gone in (self._parent.keys() | self._worker_of.keys()) - alive:
            self._parent.pop(gone, None)
            self._worker_of.pop(gone, None)
        for pid in new:
            self._parent[pid] = _parent(pid)
        for pid in new:
            self._place(pid)
        families: dict[int, set[int]] = {}
        for pid, worker in self._worker_of.items():
            families.setdefault(worker, set()).add(pid)
        return families

    def _place(self, pid: int) -> None:
        step = self._parent.get(pid, 0)
        for _ in range(100):  # deeper than any tree; pids read at different moments could form a ring
            worker = step if step in self._workers else self._worker_of.get(step)
            if worker is not None:
                self._worker_of[pid] = worker
                return
            step = self._parent.get(step, 0)
            if step == 0:
                return


def _parent(pid: int) -> int:
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return 0
