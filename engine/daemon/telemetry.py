"""What the monitor sees, put where it is used: machine.json for front ends, GPU history, points and totals of runs.

Points of a run (`gpu/util`, `gpu/memory`, `gpu/power`, `host/cpu`, `host/rss`) stand at the step the run had reached:
means, or peaks for memory, of the time since the point before. The longer a run lasts, the wider they stand apart,
about 600 in its first ten minutes and 600 more for each time that the time doubles, so that they never outgrow what
the run itself logs.
"""

import contextlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.base.atomic_files import atomic_write
from engine.base.workspace import Workspace
from engine.daemon.limits import Limits
from engine.daemon.retry_policy import GpuMemory
from engine.monitor.monitor import Monitor
from engine.monitor.samples import GpuSample, RunId, Snapshot, as_plain
from engine.monitor.usage import RunUsage, advance, ended, run_memory
from engine.store import gpu_samples, queries, queue
from engine.store.connect import Connection
from engine.store.downsample import DAY, STEPS
from engine.store.run_records import ACTIVE, GpuReading, Run

_COMMIT_SECONDS = 5.0
"""Readings are committed together: one commit costs as much as the readings of ten cards."""
_USAGE_SECONDS = 30.0
_THIN_SECONDS = 60.0
_POINTS_PER_DOUBLING = 600
_CLOCK_SETTLING_SECONDS = 3.0
"""The monitor takes its figures once a second; by then none of its snapshots holds an older one."""


@dataclass(slots=True)
class _Window:
    """What has been seen of one run since its last point."""

    usage: RunUsage
    sums: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    last_step: int = 0
    last_point: float = -math.inf
    """By `monotonic()`."""
    sharers: int = 1
    """How many runs hold its GPUs at once."""
    others_bytes: int = 0
    total_bytes: int | None = None

    def observe(self, key: str, value: float | None, peak: bool = False) -> None:
        if value is None:
            return
        if peak:
            self.peaks[key] = max(value, self.peaks.get(key, value))
        else:
            self.sums.setdefault(key, []).append(value)

    def flush(self) -> dict[str, float]:
        """The point, and begin the next."""
        values = {key: sum(values) / len(values) for key, values in self.sums.items()} | self.peaks
        self.sums, self.peaks = {}, {}
        return values


class Telemetry:
    """Owns the monitor, whose threads start with `start`: after the last fork this process makes of itself."""

    def __init__(self, conn: Connection, workspace: Workspace, limits: Limits) -> None:
        self._conn, self._workspace, self._limits = conn, workspace, limits
        self._monitor = Monitor(workspace.root)
        self._windows: dict[int, _Window] = {}
        self._pending: list[GpuReading] = []
        self._newest: dict[str, float] = {}
        """Time of the last reading kept of each GPU."""
        self._committed = self._kept_usage = time.monotonic()
        self._thinned_at = 0.0
        self._thinned_until: float | None = None
        self._watched_from = time.time()
        """A run that began later was seen from its first second on."""
        self._settled_at = 0.0
        """Figures that were taken before the clock was set do not go with those from after it."""

    def start(self) -> None:
        self._monitor.start()

    def wait(self, seconds: float) -> bool:
        """For the first figures: without them nobody knows what is free."""
        return self._monitor.wait(rounds=1, seconds=seconds)

    def latest(self) -> Snapshot:
        return self._monitor.latest()

    def clock_moved(self) -> None:
        """The clock was set: begin again with what is computed from one reading to the next."""
        self._watched_from = time.time()
        self._settled_at = time.monotonic() + _CLOCK_SETTLING_SECONDS
        self._newest.clear()
        self._thinned_until = None
        for window in self._windows.values():
            window.usage = replace(window.usage, last={})

    def watch(
        self, workers: Mapping[int, tuple[int, float | None]], engines: Mapping[str, tuple[int, float | None]] = {}
    ) -> None:
        """The live workers: run to pid and start time. `engines`: by their names, watched and not recorded."""
        watched: dict[RunId, tuple[int, float | None]] = dict(workers.items())
        self._monitor.watch(watched | dict(engines.items()))
        for run_id in self._windows.keys() - workers.keys():
            self._end(run_id)
            del self._windows[run_id]

    def gpu_memory(self, run_id: int) -> GpuMemory:
        """What was last seen of a run's GPUs."""
        window = self._windows.get(run_id)
        if window is None:
            return GpuMemory()
        return GpuMemory(window.total_bytes, window.others_bytes, window.usage.peak_memory_bytes)

    def observe(self, snapshot: Snapshot, runs: Iterable[Run], samples_by_gpu: Mapping[str, GpuSample]) -> None:
        """One second's worth. `samples_by_gpu`: by the names under which runs hold them."""
        publish(self._workspace.machine_state, as_plain(snapshot) | {"t": time.time()})
        if time.monotonic() < self._settled_at:
            return
        active = [run for run in runs if run.state in ACTIVE]
        holders: dict[str, list[int]] = {}
        for run in active:
            for gpu in run.gpus:
                holders.setdefault(gpu, []).append(run.id)
        for run in active:
            gpus = [samples_by_gpu[gpu] for gpu in run.gpus if gpu in samples_by_gpu]
            sharers = max((len(holders[gpu]) for gpu in run.gpus), default=1)
            self._observe_run(snapshot, run, gpus, sharers)
        by_uuid = {gpu.uuid: holders[name][0] for name, gpu in samples_by_gpu.items() if name in holders}
        self._keep_gpu_readings(snapshot, by_uuid)

    # -- runs ----------------------------------------------------------------------------------------------------

    def _observe_run(self, snapshot: Snapshot, run: Run, gpus: list[GpuSample], sharers: int) -> None:
        window = self._windows.get(run.id)
        if window is None:
            window = self._windows[run.id] = _Window(self._kept(run.id), last_step=run.step)
        since = run.started if run.started and run.started >= self._watched_from else None
        window.usage = advance(window.usage, gpus, run.id, sharers=sharers, since=since)
        window.sharers = sharers
        others = [
            process.memory_bytes or 0 for gpu in gpus for process in gpu.processes or () if process.owner == "not ours"
        ]
        window.others_bytes = sum(others)
        window.total_bytes = min((gpu.memory_total_bytes or 0 for gpu in gpus), default=None)
        fresh = [gpu for gpu in gpus if not gpu.stale]
        if fresh:
            window.observe("gpu/util", _mean([gpu.utilisation for gpu in fresh]))
            window.observe("gpu/power", _sum([gpu.power_watts for gpu in fresh]))
            window.observe("gpu/memory", _sum([run_memory(gpu, run.id) for gpu in fresh]), peak=True)
        load = snapshot.runs.get(run.id)
        if load:
            window.observe("host/cpu", load.cpu_percent)
            window.observe("host/rss", load.rss_bytes, peak=True)
        now = time.monotonic()
        lasted = time.time() - run.started if run.started else 0.0
        spacing = max(1.0, lasted / _POINTS_PER_DOUBLING)
        if run.step < window.last_step:
            window.last_step = run.step  # it went back to a checkpoint
        if run.step > window.last_step and now - window.last_point >= spacing:
            values = window.flush()
            if values:
                gpu_samples.add_run_readings(self._conn, run.id, run.step, values)
            window.last_step, window.last_point = run.step, now

    def _end(self, run_id: int) -> None:
        """Its worker is gone: what came after the last figures and after the last point."""
        window, run = self._windows[run_id], queries.run(self._conn, run_id)
        ended_at = run.finished if run is not None and run.finished is not None else time.time()
        window.usage = ended(window.usage, ended_at, sharers=window.sharers)
        self._keep_usage(run_id)
        values = window.flush()
        if values and run is not None and run.step > window.last_step:
            gpu_samples.add_run_readings(self._conn, run_id, run.step, values)

    def _kept(self, run_id: int) -> RunUsage:
        """Its totals from earlier attempts."""
        stored = queries.get_meta(self._conn, usage_key(run_id))
        if stored is None:
            return RunUsage()
        try:
            totals = json.loads(stored)
            return RunUsage(**{name: totals[name] for name in _TOTALS if name in totals})
        except (ValueError, TypeError):
            return RunUsage()

    def _keep_usage(self, run_id: int) -> None:
        usage = self._windows[run_id].usage
        if usage.last or usage.gpu_seconds:
            totals = {name: getattr(usage, name) for name in _TOTALS}
            queue.set_meta(self._conn, usage_key(run_id), json.dumps(totals))

    # -- GPUs ----------------------------------------------------------------------------------------------------

    def _keep_gpu_readings(self, snapshot: Snapshot, runs: Mapping[str, int]) -> None:
        """Keep this second's readings, and thin out what is old."""
        for gpu in snapshot.gpus:
            if gpu.stale or gpu.taken_at <= self._newest.get(gpu.uuid, 0.0):
                continue
            self._newest[gpu.uuid] = gpu.taken_at
            self._pending.append(
                GpuReading(
                    gpu.uuid,
                    gpu.taken_at,
                    runs.get(gpu.uuid),
                    gpu.utilisation,
                    gpu.memory_used_bytes,
                    gpu.power_watts,
                    gpu.temperature_c,
                )
            )
        now = time.monotonic()
        if self._pending and now - self._committed >= _COMMIT_SECONDS:
            gpu_samples.add_gpu_readings(self._conn, self._pending)
            self._pending, self._committed = [], now
        if now - self._kept_usage >= _USAGE_SECONDS:
            self._kept_usage = now
            for run_id in self._windows:
                self._keep_usage(run_id)
        if snapshot.gpus and now - self._thinned_at >= _THIN_SECONDS:
            self._thinned_at = now
            self._thin(time.time())

    def _thin(self, now: float) -> None:
        """Merge what has become old since the last time: into rows of 10 s, a day later of a minute (store/downsample).

        Merged rows lie on the borders of their buckets, so merging them again, as a new daemon does, changes nothing.
        """
        fine = now - STEPS[0][0]
        for older_than, seconds in STEPS:
            before = (now - older_than) // seconds * seconds
            since = before - _THIN_SECONDS * 2 if self._thinned_until is not None else fine - 2 * DAY
            since = since // seconds * seconds
            gpu_samples.thin_gpu_readings(self._conn, since, before, now)
        self._thinned_until = now
        gpu_samples.forget_gpu_readings(self._conn, now - self._limits.gpu_history_seconds)

    def close(self) -> None:
        """Keep what has not been committed yet."""
        self._monitor.stop()
        if self._pending:
            gpu_samples.add_gpu_readings(self._conn, self._pending)
        for run_id in self._windows:
            self._keep_usage(run_id)


_TOTALS = ("gpu_seconds", "energy_joules", "energy_from", "unseen_gpu_seconds", "peak_memory_bytes")


def usage_key(run_id: int) -> str:
    """Under which `queries.get_meta` gives a run's totals (GPU seconds, joules, peak memory) as JSON."""
    return f"usage:{run_id}"


def publish(path: Path, content: dict) -> None:
    """Whole or not at all. A full disk keeps the old one: these files only tell of the last second."""
    with contextlib.suppress(OSError):
        atomic_write(path, json.dumps(content))


def _mean(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _sum(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers else None
