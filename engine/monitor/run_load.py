"""What the processes of each run take from the host (psutil)."""

import time
from collections.abc import Mapping

import psutil

from engine.monitor.processes import START_TOLERANCE_SECONDS, Run, session_of
from engine.monitor.values import RunId, RunSample

TREE_EVERY_SECONDS = 5.0
"""Walking all parents costs one read per process of the machine (500 of them: about 8 ms), sessions cost a call."""


class RunReader:
    """Processor, memory and disk traffic of each run's processes, dead children's work not included."""

    def __init__(self) -> None:
        self._members: dict[int, psutil.Process] = {}
        self._before: dict[psutil.Process, tuple[float, float, int, int]] = {}
        self._tree_at = 0.0
        self._children: dict[int, list[int]] = {}

    def read(self, runs: Mapping[RunId, Run]) -> dict[RunId, RunSample]:
        if not runs:
            self._before.clear()
            return {}
        pids = psutil.pids()
        sessions: dict[int, list[int]] = {}
        for pid in pids:
            sessions.setdefault(session_of(pid) or 0, []).append(pid)
        if time.monotonic() - self._tree_at > TREE_EVERY_SECONDS:
            self._children, self._tree_at = _children(pids), time.monotonic()
        seen: dict[psutil.Process, tuple[float, float, int, int]] = {}
        samples = {run: self._sample(run, *runs[run], sessions, seen) for run in runs}
        self._before = seen
        alive = {process.pid for process in seen}
        self._members = {pid: process for pid, process in self._members.items() if pid in alive}
        return {run: sample for run, sample in samples.items() if sample is not None}

    def _sample(self, run: RunId, pid: int, started: float | None, sessions: dict, seen: dict) -> RunSample | None:
        processes = self._processes(pid, started, sessions)
        if not processes:
            return None
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
            before = self._before.get(process)
            if before is None or now[0] <= before[0]:
                continue
            seconds, compared = now[0] - before[0], True
            cpu += 100.0 * (now[1] - before[1]) / seconds
            if read >= 0 and before[2] >= 0:
                io_known = True
                reads += (read - before[2]) / seconds
                writes += (written - before[3]) / seconds
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

    def _processes(self, pid: int, started: float | None, sessions: dict) -> list[psutil.Process]:
        root = self._process(pid)
        own_root = root is not None and (
            started is None or abs(root.create_time() - started) <= START_TOLERANCE_SECONDS
        )
        members = set(_below(pid, self._children)) | {pid} if own_root else set()
        if root is None or own_root:  # a worker that died may leave its session behind; a stranger's is not ours
            members |= set(sessions.get(pid, ()))
        found = [self._process(member) for member in sorted(members)]
        return [process for process in found if process is not None]

    def _process(self, pid: int) -> psutil.Process | None:
        known = self._members.get(pid)
        if known is not None and known.is_running():
            return known
        try:
            process = self._members[pid] = psutil.Process(pid)
            return process
        except psutil.Error:
            self._members.pop(pid, None)
            return None


def _io(process: psutil.Process) -> tuple[int, int]:
    """Bytes that went to and came from disks; -1 where the system does not tell (macOS, another user's process)."""
    try:
        counters = process.io_counters()
    except (psutil.AccessDenied, AttributeError):
        return -1, -1
    return counters.read_bytes, counters.write_bytes


def _children(pids: list[int]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for pid in pids:
        try:
            children.setdefault(psutil.Process(pid).ppid(), []).append(pid)
        except psutil.Error:
            continue
    return children


def _below(pid: int, children: dict[int, list[int]]) -> list[int]:
    found, todo = [], [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.append(child)
                todo.append(child)
    return found
