"""History that stays small: every second for 15 minutes, every 10 s for a day, every minute beyond.

Buckets are aligned to the clock and merged only when they lie wholly beyond the line, so thinning little by little
and thinning once give the same rows, and thinning twice changes nothing. Means are weighted by how many samples they
stand for; peaks (memory, temperature) are kept as peaks, because a peak is what an out-of-memory is asked about.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from engine.monitor.samples import GpuSample

_Figure = TypeVar("_Figure", int, float)
MINUTE, DAY = 60.0, 86400.0
STEPS = ((15 * MINUTE, 10), (DAY, 60))
"""(older than, seconds per row), finest first."""


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One GPU over `bucket_seconds`, beginning at `taken_at`."""

    gpu: str
    taken_at: float
    utilisation: float | None
    memory_used_bytes: int | None
    """The highest of the bucket."""
    power_watts: float | None
    temperature_c: float | None
    """The highest of the bucket."""
    samples: int = 1
    bucket_seconds: int = 1


def point(sample: GpuSample) -> HistoryPoint:
    return HistoryPoint(
        sample.uuid,
        sample.taken_at,
        sample.utilisation,
        sample.memory_used_bytes,
        sample.power_watts,
        sample.temperature_c,
    )


def downsample(points: Iterable[HistoryPoint], now: float) -> list[HistoryPoint]:
    """The same history with fewer rows, in order of GPU and time."""
    merged = sorted(points, key=lambda p: (p.gpu, p.taken_at))
    for older_than, seconds in STEPS:
        merged = _merge(merged, now - older_than, seconds)
    return merged


def _merge(points: list[HistoryPoint], until: float, seconds: int) -> list[HistoryPoint]:
    kept: list[HistoryPoint] = []
    bucket: list[HistoryPoint] = []
    bucket_start = 0
    for p in points:
        start = math.floor(p.taken_at / seconds) * seconds
        mergeable = p.bucket_seconds < seconds and start + seconds <= until
        if bucket and not (mergeable and (p.gpu, start) == (bucket[0].gpu, bucket_start)):
            kept.append(_merged(bucket, bucket_start, seconds))
            bucket = []
        if mergeable:
            bucket.append(p)
            bucket_start = start
        else:
            kept.append(p)
    if bucket:
        kept.append(_merged(bucket, bucket_start, seconds))
    return kept


def _merged(bucket: list[HistoryPoint], start: float, seconds: int) -> HistoryPoint:
    return HistoryPoint(
        gpu=bucket[0].gpu,
        taken_at=float(start),
        utilisation=_mean([(p.utilisation, p.samples) for p in bucket]),
        memory_used_bytes=_peak([p.memory_used_bytes for p in bucket]),
        power_watts=_mean([(p.power_watts, p.samples) for p in bucket]),
        temperature_c=_peak([p.temperature_c for p in bucket]),
        samples=sum(p.samples for p in bucket),
        bucket_seconds=seconds,
    )


def _mean(weighted: list[tuple[float | None, int]]) -> float | None:
    read = [(figure, weight) for figure, weight in weighted if figure is not None]
    if not read:
        return None
    return sum(figure * weight for figure, weight in read) / sum(weight for _, weight in read)


def _peak(figures: Iterable[_Figure | None]) -> _Figure | None:
    return max((figure for figure in figures if figure is not None), default=None)
