"""What a compared run took: time, GPU hours, energy, memory, disk."""

import json
from collections.abc import Sequence

from engine.compare.comparison_records import Cost
from engine.compare.result_tables import tokens_at
from engine.compare.subjects import ResolvedRun, ResolvedSubject
from engine.store import gpu_samples, progress_queries, queries
from engine.store.run_records import GpuReading

_GAP_SECONDS = 90.0
"""Power readings further apart than the widest thinning (60 s) say nothing about what lies between."""


def run_cost(resolved: ResolvedSubject) -> Cost:
    """All None for an evaluation that belongs to no run."""
    if not isinstance(resolved, ResolvedRun):
        return Cost()
    run, conn, last_step = resolved.run, resolved.conn, resolved.subject.last_step
    attempts = progress_queries.attempts(conn, run)
    seconds = progress_queries.worked(attempts) if attempts else None
    tokens = tokens_at(resolved, last_step) if last_step is not None else None
    speed = resolved.series.get("train/tokens_per_s")
    sizes = [c.bytes for c in queries.checkpoints(conn, run.id, removed=True) if c.bytes is not None]
    gpu_seconds, joules, peak = _gpu_use(resolved)
    if gpu_seconds is None and seconds is not None and run.gpus:
        gpu_seconds = seconds * len(run.gpus)
    return Cost(
        seconds=seconds,
        gpu_hours=gpu_seconds / 3600 if gpu_seconds else None,
        energy_wh=joules / 3600 if joules is not None else None,
        peak_memory_bytes=peak,
        checkpoint_bytes=sizes[0] if sizes else None,
        tokens=round(tokens) if tokens is not None else None,
        tokens_per_second=speed.last if speed else None,
    )


def _gpu_use(resolved: ResolvedRun) -> tuple[float | None, float | None, int | None]:
    """GPU seconds, joules and peak memory: as the daemon has kept them, else by the worker's and the GPUs' readings."""
    conn, run_id = resolved.conn, resolved.run.id
    kept = json.loads(queries.get_meta(conn, f"usage:{run_id}") or "{}")
    seconds, joules, peak = (kept.get(name) for name in ("gpu_seconds", "energy_joules", "peak_memory_bytes"))
    if peak is None:
        measured = progress_queries.said(conn, run_id, ("memory",)).get("memory", {})
        peak = measured.get("reserved_bytes") or measured.get("peak_bytes")
    if joules is None:
        joules = _integrated(gpu_samples.gpu_readings(conn, run_id=run_id))
    return seconds, joules, peak


def _integrated(readings: Sequence[GpuReading]) -> float | None:
    """Joules by the power readings of a run's GPUs, gaps left out."""
    joules: float | None = None
    last: dict[str, GpuReading] = {}
    for reading in readings:
        previous = last.get(reading.gpu)
        if previous and previous.power_watts is not None and reading.power_watts is not None:
            seconds = reading.time - previous.time
            if seconds <= _GAP_SECONDS:
                joules = (joules or 0.0) + seconds * (previous.power_watts + reading.power_watts) / 2
        last[reading.gpu] = reading
    return joules
