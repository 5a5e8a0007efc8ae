"""History stays small without losing peaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.store.downsample import DAY, MINUTE, downsample
from engine.store.run_records import GpuReading

NOW = 1_800_000_000.0


def row(age: float, value: float = 50.0, memory: int = 10, gpu: str = "GPU-0") -> GpuReading:
    return GpuReading(gpu, NOW - age, 41, value, memory, value, value)


def test_a_second_for_fifteen_minutes_ten_for_a_day_a_minute_beyond():
    kept = downsample([row(float(age)) for age in range(int(DAY) + 3600)], NOW)
    ages = [NOW - p.time for p in kept]
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
    assert [(p.gpu, p.time, p.memory_bytes, p.samples) for p in once] == [
        (p.gpu, p.time, p.memory_bytes, p.samples) for p in often
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
        assert max(p.memory_bytes for p in after) == max(p.memory_bytes for p in before)
        mean = sum(p.power_watts for p in before) / len(before)
        assert sum(p.power_watts * p.samples for p in after) / len(before) == pytest.approx(mean, abs=1e-6)


def test_a_figure_that_was_never_known_stays_unknown():
    unknown = GpuReading("GPU-0", NOW - 2 * DAY)
    (kept,) = downsample([unknown, unknown], NOW)
    assert kept.utilisation is None and kept.memory_bytes is None
