"""History stays small without losing peaks; energy, GPU-hours and peak memory are right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.monitor.downsample import DAY, MINUTE, HistoryPoint, downsample, point
from engine.monitor.samples import GpuProcess, GpuSample
from engine.monitor.usage import RunUsage, advance

NOW = 1_800_000_000.0


def row(age: float, value: float = 50.0, memory: int = 10, gpu: str = "GPU-0") -> HistoryPoint:
    return HistoryPoint(gpu, NOW - age, value, memory, value, value)


def test_a_second_for_fifteen_minutes_ten_for_a_day_a_minute_beyond():
    kept = downsample([row(float(age)) for age in range(int(DAY) + 3600)], NOW)
    ages = [NOW - p.taken_at for p in kept]
    assert sum(age <= 15 * MINUTE for age in ages) == pytest.approx(900, abs=10)
    assert sum(15 * MINUTE < age <= DAY for age in ages) == pytest.approx((DAY - 900) / 10, abs=6)
    assert sum(age > DAY for age in ages) == pytest.approx(60, abs=2)
    assert sum(p.samples for p in kept) == int(DAY) + 3600


points = st.lists(
    st.builds(
        row,
        st.floats(0, 2 * DAY),
        st.floats(0, 100),
        st.integers(0, 1 << 40),
        st.sampled_from(["GPU-0", "GPU-1"]),
    ),
    max_size=60,
)


@given(points)
def test_thinning_twice_changes_nothing(rows):
    assert downsample(downsample(rows, NOW), NOW) == downsample(rows, NOW)


@given(points, st.lists(st.floats(0, DAY), max_size=5))
def test_thinning_often_or_once_gives_the_same_history(rows, pauses):
    little_by_little, at = rows, NOW
    for pause in pauses:
        little_by_little, at = downsample(little_by_little, at), at + pause
    once, often = downsample(rows, at), downsample(little_by_little, at)
    assert [(p.gpu, p.taken_at, p.memory_used_bytes, p.samples) for p in once] == [
        (p.gpu, p.taken_at, p.memory_used_bytes, p.samples) for p in often
    ]
    assert [p.utilisation for p in often] == pytest.approx([p.utilisation for p in once])


def test_a_bucket_half_beyond_the_line_is_not_torn():
    rows = [row(float(age), value=age) for age in range(1200)]
    little_by_little = rows
    for second in range(40):
        little_by_little = downsample(little_by_little, NOW + second)
    assert little_by_little == downsample(rows, NOW + 39)


@given(points)
def test_no_peak_and_no_mean_is_lost(rows):
    for gpu in {p.gpu for p in rows}:
        before, after = [p for p in rows if p.gpu == gpu], [p for p in downsample(rows, NOW) if p.gpu == gpu]
        assert max(p.memory_used_bytes for p in after) == max(p.memory_used_bytes for p in before)
        mean = sum(p.power_watts for p in before) / len(before)
        assert sum(p.power_watts * p.samples for p in after) / len(before) == pytest.approx(mean, abs=1e-6)


def test_a_figure_that_was_never_known_stays_unknown():
    unknown = point(GpuSample(0, "GPU-0", taken_at=NOW - 2 * DAY))
    (kept,) = downsample([unknown, unknown], NOW)
    assert kept.utilisation is None and kept.memory_used_bytes is None


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
