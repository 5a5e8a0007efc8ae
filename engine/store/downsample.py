"""History that stays small: every second for 15 minutes, every 10 s for a day, every minute beyond.

Buckets are aligned to the clock and merged only when they lie wholly beyond the line, so thinning little by little
and thinning once give the same rows, and thinning twice changes nothing. Means are weighted by how many samples they
stand for; peaks (memory, temperature) are kept as peaks, because a peak is what an out-of-memory is asked about.
"""

import math
from collections.abc import Iterable
from typing import TypeVar

from engine.store.run_records import GpuReading

_Figure = TypeVar("_Figure", int, float)
MINUTE, DAY = 60.0, 86400.0
STEPS = ((15 * MINUTE, 10), (DAY, 60))
"""(older than, seconds per row), finest first."""


def downsample(readings: Iterable[GpuReading], now: float) -> list[GpuReading]:
    """The same history with fewer rows, in order of GPU and time."""
    merged = sorted(readings, key=lambda r: (r.gpu, r.time))
    for older_than, seconds in STEPS:
        merged = _merge(merged, now - older_than, seconds)
    return merged


def _merge(readings: list[GpuReading], until: float, seconds: int) -> list[GpuReading]:
    kept: list[GpuReading] = []
    bucket: list[GpuReading] = []
    bucket_start = 0
    for r in readings:
        start = math.floor(r.time / seconds) * seconds
        mergeable = r.bucket_seconds < seconds and start + seconds <= until
        if bucket and not (mergeable and (r.gpu, start) == (bucket[0].gpu, bucket_start)):
            kept.append(_merged(bucket, bucket_start, seconds))
            bucket = []
        if mergeable:
            bucket.append(r)
            bucket_start = start
        else:
            kept.append(r)
    if bucket:
        kept.append(_merged(bucket, bucket_start, seconds))
    return kept


def _merged(bucket: list[GpuReading], start: float, seconds: int) -> GpuReading:
    return GpuReading(
        gpu=bucket[0].gpu,
        time=float(start),
        run_id=bucket[-1].run_id,
        utilisation=_mean([(r.utilisation, r.samples) for r in bucket]),
        memory_bytes=_peak([r.memory_bytes for r in bucket]),
        power_watts=_mean([(r.power_watts, r.samples) for r in bucket]),
        temperature=_peak([r.temperature for r in bucket]),
        samples=sum(r.samples for r in bucket),
        bucket_seconds=seconds,
    )


def _mean(weighted: list[tuple[float | None, int]]) -> float | None:
    read = [(figure, weight) for figure, weight in weighted if figure is not None]
    if not read:
        return None
    return sum(figure * weight for figure, weight in read) / sum(weight for _, weight in read)


def _peak(figures: Iterable[_Figure | None]) -> _Figure | None:
    return max((figure for figure in figures if figure is not None), default=None)
