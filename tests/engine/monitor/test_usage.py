"""Energy, GPU-hours and peak memory of a run are right, whatever the card tells and however long nobody looked."""

import pytest

from engine.monitor.samples import GpuProcess, GpuSample
from engine.monitor.usage import RunUsage, advance


def gpu(at: float, joules: float | None = None, watts: float | None = None, memory: int | None = None, uuid="GPU-0"):
    process = GpuProcess(uuid, 1, "compute", memory, run=41)
    return GpuSample(0, uuid, taken_at=at, energy_joules=joules, power_watts=watts, processes=(process,))


def total(*samples: GpuSample, **words) -> RunUsage:
    usage = RunUsage()
    for sample in samples:
        usage = advance(usage, [sample], 41, **words)
    return usage


def test_energy_is_the_counters_difference_also_across_an_hour_unwatched():
    usage = total(gpu(0, 1_000, 300), gpu(1, 1_390, 400), gpu(3601, 1_081_000, 300))
    assert usage.energy_joules == pytest.approx(300.0 * 3600) and usage.energy_from == "counter"
    assert usage.gpu_seconds == pytest.approx(3601) and usage.unseen_gpu_seconds == 0


def test_without_a_counter_power_is_integrated():
    usage = total(gpu(0, watts=300), gpu(1, watts=500), gpu(3, watts=100))
    assert usage.energy_joules == pytest.approx(400 + 600) and usage.energy_from == "power"


def test_without_a_counter_a_gap_is_told_apart_and_not_guessed():
    usage = total(gpu(0, watts=300), gpu(1, watts=300), gpu(601, watts=300), gpu(602, watts=300))
    assert usage.energy_joules == pytest.approx(600) and usage.unseen_gpu_seconds == 600


def test_a_counter_that_starts_anew_never_gives_negative_energy():
    usage = total(gpu(0, 5_000, 200), gpu(1, 100, 200), gpu(2, 300, 200))
    assert usage.energy_joules == pytest.approx(200 + 200) and usage.energy_from == "counter and power"


def test_a_card_that_tells_no_power_gives_no_energy_rather_than_zero():
    usage = total(gpu(0), gpu(1), gpu(2))
    assert usage.energy_joules is None and usage.gpu_seconds == pytest.approx(2)


def test_a_stale_sample_is_not_counted_again():
    once, twice = total(gpu(0, 0), gpu(1, 300)), total(gpu(0, 0), gpu(1, 300), gpu(1, 300))
    assert once == twice


def test_gpu_hours_and_energy_add_up_over_cards_and_peak_memory_does_not():
    usage = RunUsage()
    for at in (0, 3600):
        pair = [gpu(at, joules=at * 100.0, memory=7 + at), gpu(at, joules=at * 200.0, memory=5, uuid="GPU-1")]
        usage = advance(usage, pair, 41)
    assert usage.gpu_seconds == 7200 and usage.energy_joules == 300.0 * 3600 and usage.peak_memory_bytes == 3607


def test_memory_of_other_runs_is_not_in_the_peak():
    assert total(gpu(0, memory=None)).peak_memory_bytes is None
    assert advance(RunUsage(), [gpu(0, memory=9)], 42).peak_memory_bytes is None


def test_two_runs_on_one_card_split_its_energy():
    assert total(gpu(0, 0), gpu(1, 300), sharers=2).energy_joules == 150
