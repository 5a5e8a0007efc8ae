"""What a chart needs of one series: O(columns) rows, whatever the number of points.

The range is covered by the coarsest buckets no wider than a column; its two ends, and the tail that no closed bucket
holds yet, by the level below, and so on down to the points.
"""

import bisect
import sqlite3
from collections.abc import Iterator

from engine.store.connect import snapshot
from engine.store.run_records import Chart, Column, Point
from engine.store.series import BASE_SHIFT, LEVEL_SHIFT, LEVELS, TIME_KEY

X_SERIES = {"time": TIME_KEY, "tokens": "train/tokens"}
"""The x axes besides 'step', and the rising series each reads."""
_FINITE = "CASE WHEN abs(value) <= 1.7976931348623157e308 THEN value END"

_Bucket = tuple[int, int, float | None, float | None, float, int, int]
"""First step, last step, low, high, sum, count, nonfinite."""


def chart(
    conn: sqlite3.Connection,
    run_id: int,
    key: str,
    columns: int,
    x: str = "step",
    low: float | None = None,
    high: float | None = None,
) -> Chart | None:
    """Min, max and mean per column between `low` and `high` on the x axis (None: all of it). None: nothing logged."""
    with snapshot(conn):
        series = span(conn, run_id, key)
        if series is None:
            return None
        if x == "step":
            low_x = series[1] if low is None else low
            high_x = series[2] if high is None else high
            step_width = (high_x - low_x + 1) / columns
            buckets = _cover(conn, series, int(low_x), int(high_x) + 1, step_width)
            return Chart(run_id, key, x, low_x, high_x, _bin(buckets, low_x, step_width, columns, None))
        axis = _axis(conn, run_id, X_SERIES[x], columns)
        if axis is None:
            return None
        low_x = axis.x_of(series[1]) if low is None else low
        high_x = axis.x_of(series[2]) if high is None else high
        first, last = axis.step_of(low_x), axis.step_of(high_x)
        # Steps lie unevenly on this axis (pauses, longer batches), so look finer than its columns.
        buckets = _cover(conn, series, int(first), int(last) + 1, (last - first + 1) / columns / 2)
        width = (high_x - low_x) / columns or 1.0
        return Chart(run_id, key, x, low_x, high_x, _bin(buckets, low_x, width, columns, axis))


def tail(conn: sqlite3.Connection, run_id: int, key: str, count: int) -> tuple[Point, ...]:
    """The last points, in order."""
    rows = conn.execute(
        "SELECT step, value FROM points WHERE series = (SELECT s.id FROM metric_summary s JOIN metric_keys k"
        " ON k.id = s.key_id WHERE s.run_id = ? AND k.key = ?) ORDER BY step DESC LIMIT ?",
        (run_id, key, count),
    ).fetchall()
    return tuple(Point(*row) for row in reversed(rows))


def at_step(conn: sqlite3.Connection, run_id: int, key: str, step: int) -> Point | None:
    """The last point at or before a step: what another run had reached by then."""
    row = conn.execute(
        "SELECT step, value FROM points WHERE series = (SELECT s.id FROM metric_summary s JOIN metric_keys k"
        " ON k.id = s.key_id WHERE s.run_id = ? AND k.key = ?) AND step <= ? ORDER BY step DESC LIMIT 1",
        (run_id, key, step),
    ).fetchone()
    return Point(*row) if row else None


def span(conn: sqlite3.Connection, run_id: int, key: str) -> tuple[int, int, int] | None:
    """A series' id, first step and last step; None where nothing was logged."""
    return conn.execute(
        "SELECT s.id, s.first_step, s.last_step FROM metric_summary s JOIN metric_keys k ON k.id = s.key_id"
        " WHERE s.run_id = ? AND k.key = ? AND s.count > 0",
        (run_id, key),
    ).fetchone()


def _cover(
    conn: sqlite3.Connection, series: tuple[int, int, int], start: int, end: int, width: float
) -> Iterator[_Bucket]:
    """Buckets no wider than `width` that hold exactly the points of [start, end), in order."""
    series_id, first_step, last_step = series
    start, end = max(start, first_step), min(end, last_step + 1)
    level = -1
    while level + 1 < LEVELS and 1 << (BASE_SHIFT + LEVEL_SHIFT * (level + 1)) <= width:
        level += 1
    yield from _cover_at(conn, series_id, last_step, level, start, end, max(width, 1.0))


def _cover_at(
    conn: sqlite3.Connection, series: int, last_step: int, level: int, start: int, end: int, width: float
) -> Iterator[_Bucket]:
    if start >= end:
        return
    if level < 0:
        yield from conn.execute(
            f"SELECT min(step), max(step), min({_FINITE}), max({_FINITE}), total({_FINITE}), count(*),"
            f" count(*) - count({_FINITE}) FROM points WHERE series = ? AND step >= ? AND step < ?"
            " GROUP BY CAST((step - ?) / ? AS INTEGER)",
            (series, start, end, start, width),
        )
        return
    shift = BASE_SHIFT + LEVEL_SHIFT * level
    first = -(-start >> shift)
    closed = min(end, last_step) >> shift
    if first >= closed:
        yield from _cover_at(conn, series, last_step, level - 1, start, end, width)
        return
    yield from _cover_at(conn, series, last_step, level - 1, start, first << shift, width)
    yield from conn.execute(
        f"SELECT bucket << {shift}, ((bucket + 1) << {shift}) - 1, low, high, total, count, nonfinite"
        " FROM metric_pyramid WHERE series = ? AND level = ? AND bucket >= ? AND bucket < ? ORDER BY bucket",
        (series, level, first, closed),
    )
    yield from _cover_at(conn, series, last_step, level - 1, closed << shift, end, width)


def _bin(
    buckets: Iterator[_Bucket], low_x: float, width: float, columns: int, axis: "_Axis | None"
) -> tuple[Column, ...]:
    """Put each bucket into the one column it belongs to."""
    columns_by_index: dict[int, list] = {}
    for first, last, low, high, total, count, nonfinite in buckets:
        # By its beginning on an uneven axis: the middle of a bucket that spans a pause would lie inside the pause.
        x = axis.x_of(first) if axis else (first + last) / 2
        index = min(max(int((x - low_x) / width), 0), columns - 1)
        column = columns_by_index.get(index)
        if column is None:
            columns_by_index[index] = [first, last, low, high, total, count, nonfinite]
            continue
        column[0], column[1] = min(column[0], first), max(column[1], last)
        if low is not None:
            column[2] = low if column[2] is None else min(column[2], low)
            column[3] = high if column[3] is None else max(column[3], high)
        column[4] += total
        column[5] += count
        column[6] += nonfinite
    return tuple(
        Column(
            x=low_x + (index + 0.5) * width,
            first_step=first,
            last_step=last,
            low=low,
            high=high,
            mean=total / (count - nonfinite) if count > nonfinite else None,
            count=count,
            nonfinite=nonfinite,
        )
        for index, (first, last, low, high, total, count, nonfinite) in sorted(columns_by_index.items())
    )


class _Axis:
    """A rising x axis over steps: known at some of them, straight lines in between."""

    def __init__(self, steps: list[float], values: list[float]) -> None:
        self._steps = steps
        self._values = values

    def x_of(self, step: float) -> float:
        return _interpolate(self._steps, self._values, step)

    def step_of(self, x: float) -> float:
        return _interpolate(self._values, self._steps, x)


def _interpolate(xs: list[float], ys: list[float], x: float) -> float:
    index = bisect.bisect_left(xs, x)
    if index == 0:
        return ys[0]
    if index == len(xs):
        return ys[-1]
    left, right = xs[index - 1], xs[index]
    share = (x - left) / (right - left) if right > left else 1.0
    return ys[index - 1] + share * (ys[index] - ys[index - 1])


def _axis(conn: sqlite3.Connection, run_id: int, key: str, columns: int) -> _Axis | None:
    series = span(conn, run_id, key)
    if series is None:
        return None
    steps: list[float] = []
    values: list[float] = []
    origin = None
    highest = float("-inf")
    for first, last, low, high, *_ in _cover(
        conn, series, series[1], series[2] + 1, (series[2] - series[1]) / columns / 2
    ):
        if low is None or high is None:
            continue
        if origin is None:
            origin = low if key == TIME_KEY else 0.0
        for step, value in ((first, low), (last, high)):
            highest = max(highest, value - origin)  # a clock set back must not fold the axis
            steps.append(step)
            values.append(highest)
    return _Axis(steps, values) if steps else None
