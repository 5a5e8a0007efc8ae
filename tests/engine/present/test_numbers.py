"""Times as people read them never jump: a unit is named when it is full."""

import pytest

from engine.present import numbers

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59, "59s"), (77, "1m"), (119, "1m"), (120, "2m"), (3599, "59m"), (3600, "1h"), (86_399, "23h"), (172_799, "1d")],
)
def test_how_long_ago_counts_full_units(seconds, text):
    assert numbers.ago(NOW - seconds, NOW) == f"{text} ago"


def test_every_form_of_a_duration_only_grows():
    for form in (numbers.duration, numbers.short_duration, numbers.age):
        assert form(77.0) != "77s"
        for seconds in range(60, 7200):
            assert not form(float(seconds)).startswith("60")
