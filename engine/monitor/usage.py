"""What a run has used so far: GPU-hours, energy, peak memory. Pure: usage and samples in, usage out.

Energy comes from the card's counter where it has one (Volta and later): exact, and right across a gap in watching,
since the counter went on. Elsewhere power is integrated between samples (trapezoids), but not across a gap, which is
counted as `unseen_gpu_seconds`. A slice has neither, so its energy stays None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.monitor.samples import GpuSample, RunId

GAP_SECONDS = 10.0
"""Ten missed rounds: what the power did in between is a guess."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last sample of one GPU that counted."""

    taken_at: float
    power_watts: float | None
    energy_joules: float | None


@dataclass(frozen=True, slots=True)
class RunUsage:
    """Totals of one run, to be kept with it; `advance` them by each sample."""

    gpu_seconds: float = 0.0
    """Seconds times GPUs held, used or not."""
    energy_joules: float | None = None
    """None until some card has reported its power."""
    energy_from: str = ""
    """'counter', 'power', or 'counter and power'."""
    unseen_gpu_seconds: float = 0.0
    """Held while nobody watched and no counter ran: their energy is missing from the sum."""
    peak_memory_bytes: int | None = None
    """Highest memory of the run's processes on any one GPU."""
    last: Mapping[str, _Seen] = field(default_factory=dict)


def advance(
    usage: RunUsage, gpus: Sequence[GpuSample], run: RunId, *, sharers: int = 1, since: float | None = None
) -> RunUsage:
    """Adds one sample of each GPU the run holds. Energy of a GPU held by several runs is split evenly.

    `since`: when the run got its GPUs, where that was seen: what lies between that and the first sample is reckoned by
    the power of that sample.
    """
    for gpu in gpus:
        previous = usage.last.get(gpu.uuid)
        now = _Seen(gpu.taken_at, gpu.power_watts, gpu.energy_joules)
        if previous is None and since is not None and abs(now.taken_at - since) <= GAP_SECONDS:
            previous = _at(now, since)
            usage = replace(usage, last={**usage.last, gpu.uuid: previous})
        if previous is not None and now.taken_at <= previous.taken_at:
            continue  # the same figures again: a stale sample
        usage = replace(
            usage,
            peak_memory_bytes=_peak(usage.peak_memory_bytes, run_memory(gpu, run)),
            last={**usage.last, gpu.uuid: now},
        )
        if previous is not None:
            usage = _add(usage, previous, now, sharers)
    return usage


def ended(usage: RunUsage, when: float, *, sharers: int = 1) -> RunUsage:
    """Adds what lies between the last samples and the run's end, by the power of these samples."""
    for last in usage.last.values():
        if 0 < when - last.taken_at <= GAP_SECONDS:
            usage = _add(usage, last, _at(last, when), sharers)
    return replace(usage, last={})


def _at(seen: _Seen, when: float) -> _Seen:
    """What would have been seen a little earlier or later, at the same power."""
    if seen.power_watts is None or seen.energy_joules is None:
        return _Seen(when, seen.power_watts, None)
    return _Seen(when, seen.power_watts, seen.energy_joules + seen.power_watts * (when - seen.taken_at))


def _add(usage: RunUsage, previous: _Seen, now: _Seen, sharers: int) -> RunUsage:
    seconds = now.taken_at - previous.taken_at
    joules, source = energy_between(previous, now)
    if joules is None:
        return replace(
            usage,
            gpu_seconds=usage.gpu_seconds + seconds,
            unseen_gpu_seconds=usage.unseen_gpu_seconds + seconds,
        )
    return replace(
        usage,
        gpu_seconds=usage.gpu_seconds + seconds,
        energy_joules=(usage.energy_joules or 0.0) + joules / sharers,
        energy_from=_both(usage.energy_from, source),
    )


def energy_between(previous: _Seen | GpuSample, now: _Seen | GpuSample) -> tuple[float | None, str]:
    """Joules between two samples of one GPU, and from what they were taken."""
    if previous.energy_joules is not None and now.energy_joules is not None:
        joules = now.energy_joules - previous.energy_joules
        if joules >= 0:  # the counter starts at 0 when the driver is loaded again
            return joules, "counter"
    seconds = now.taken_at - previous.taken_at
    if previous.power_watts is None or now.power_watts is None or not 0 < seconds <= GAP_SECONDS:
        return None, ""
    return seconds * (previous.power_watts + now.power_watts) / 2.0, "power"


def run_memory(gpu: GpuSample, run: RunId) -> int | None:
    """Bytes the run's processes hold on this GPU; None where the driver does not tell."""
    sizes = [process.memory_bytes for process in gpu.processes or () if process.run == run]
    reported = [size for size in sizes if size is not None]
    return sum(reported) if reported else None


def _peak(previous: int | None, now: int | None) -> int | None:
    return max((size for size in (previous, now) if size is not None), default=None)


def _both(previous: str, now: str) -> str:
    if not previous or previous == now:
        return now
    return "counter and power"
