"""Points, one summary per series, and the pyramid that charts read.

A series is one metric of one run. Its summary is kept up to date with every commit, so lists and comparisons never
look at points. Its pyramid holds min, max, sum and count per bucket of 32, 128, 512, ... steps. A bucket is written
once, when a point beyond its end arrives; what is not yet in a closed bucket is the tail, which charts read from the
level below, at the bottom from the points: at most 3 buckets a level and 31 points. So an ordinary step touches no
pyramid page at all, and the pyramid costs about 1.5 bytes a point.

Points normally come in rising order of steps. One that does not (logged twice, or a run that resumed) takes the slow
path: buckets from there on are written again and the summary is counted again.
"""

import sqlite3
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.metrics.best_evaluation import Best, Criterion
from engine.store.run_records import Series

BASE_SHIFT = 5
LEVEL_SHIFT = 2
LEVELS = 9
"""Buckets of 32 * 4**level steps: 32, 128, ... 2 million, enough for 200 columns over 400 million steps."""
TIME_KEY = "time"
"""The series that holds the epoch seconds at which each step was logged."""
PACE_STEPS = 20
"""So many of the last steps say how fast a run is: examples differ in length."""

_FINITE = "CASE WHEN abs(value) <= 1.7976931348623157e308 THEN value END"
SERIES = (
    "s.run_id, k.key, s.count, s.nonfinite, s.first_step, s.first, s.last_step, s.last, s.low_step, s.low,"
    " s.high_step, s.high, s.id FROM metric_summary s JOIN metric_keys k ON k.id = s.key_id"
)
"""What a `Series` is made of, in the order of its fields."""
_UPDATE = (
    "UPDATE metric_summary SET count = ?, nonfinite = ?, first_step = ?, first = ?, last_step = ?, last = ?,"
    " low_step = ?, low = ?, high_step = ?, high = ? WHERE id = ?"
)


def summaries(conn: sqlite3.Connection, run_id: int) -> dict[str, Series]:
    """Every series of a run by its key."""
    return {row[1]: Series(*row) for row in conn.execute(f"SELECT {SERIES} WHERE s.run_id = ?", (run_id,))}


def best_of_series(conn: sqlite3.Connection, series: Series, criterion: Criterion) -> Best:
    """By the summary alone, but where the best value is that before the first step: then by the points."""
    best = series.standing(criterion)
    if (series.low_step if criterion.lower else series.high_step) != 0:
        return best
    order = "value, step" if criterion.lower else "value DESC, step"
    row = conn.execute(
        f"SELECT value, step FROM points WHERE series = ? AND step > 0 AND {_FINITE} IS NOT NULL"
        f" ORDER BY {order} LIMIT 1",
        (series.id,),
    ).fetchone()
    value, step = row or (None, None)
    return Best(criterion, value, step, best.start)


def pace(conn: sqlite3.Connection, series: Series) -> float | None:
    """The median of the last values. The first of all is left out where there are others: it also allocates, compiles
    and reads files for the first time."""
    rows = conn.execute(
        "SELECT value FROM points WHERE series = ? AND step > ? AND value IS NOT NULL ORDER BY step DESC LIMIT ?",
        (series.id, series.first_step, PACE_STEPS),
    )
    values = [value for (value,) in rows]
    return statistics.median(values) if values else series.last


def add_points(
    conn: sqlite3.Connection,
    run_id: int,
    points: Mapping[str, Sequence[tuple[int, float | None]]],
    by_key: dict[str, Series],
) -> int:
    """Write points by key inside the caller's transaction; `by_key` are its `summaries`, kept up to date."""
    written = 0
    changed = []
    for key, new in points.items():
        if not new:
            continue
        series = by_key.get(key)
        if series is None:
            series = by_key[key] = _new_series(conn, run_id, key)
        if not _rising(series.last_step, new):
            new = sorted(dict(new).items())  # the last one logged for a step counts
        rows = [(series.id, step, value) for step, value in new]
        written += len(rows)
        if new[0][0] > series.last_step:
            conn.executemany("INSERT INTO points VALUES (?, ?, ?)", rows)
            closed_to = series.last_step
            series = by_key[key] = series.extended(new)
            changed.append(_row(series))
            _close_buckets(conn, series.id, closed_to, series.last_step)
        else:
            conn.executemany("INSERT OR REPLACE INTO points VALUES (?, ?, ?)", rows)
            series = by_key[key] = _recount(conn, series)
            _drop_buckets(conn, series.id, new[0][0])
            _close_buckets(conn, series.id, new[0][0], series.last_step)
    conn.executemany(_UPDATE, changed)
    return written


def drop_beyond(conn: sqlite3.Connection, run_id: int, step: int, by_key: dict[str, Series]) -> None:
    """Take back every point of the run beyond `step`; `by_key` is kept up to date."""
    for key, series in list(by_key.items()):
        if series.last_step <= step:
            continue
        conn.execute("DELETE FROM points WHERE series = ? AND step > ?", (series.id, step))
        series = by_key[key] = _recount(conn, series)
        _drop_buckets(conn, series.id, max(series.last_step, 0))
        if not series.count:
            conn.execute("DELETE FROM metric_summary WHERE id = ?", (series.id,))
            del by_key[key]


def move_clock(conn: sqlite3.Connection, step: int, seconds: float, by_key: dict[str, Series]) -> None:
    """The clock was set by so much: the times of the steps beyond `step` move along; `by_key` is kept up to date."""
    series = by_key.get(TIME_KEY)
    if series is None or series.last_step <= step:
        return
    conn.execute("UPDATE points SET value = value + ? WHERE series = ? AND step > ?", (seconds, series.id, step))
    series = by_key[TIME_KEY] = _recount(conn, series)
    _drop_buckets(conn, series.id, step + 1)
    _close_buckets(conn, series.id, step + 1, series.last_step)


def drop_run(conn: sqlite3.Connection, run_id: int) -> None:
    """Delete every point, bucket and summary of a run."""
    for table in ("points", "metric_pyramid"):
        conn.execute(f"DELETE FROM {table} WHERE series IN (SELECT id FROM metric_summary WHERE run_id = ?)", (run_id,))
    conn.execute("DELETE FROM metric_summary WHERE run_id = ?", (run_id,))


def _rising(step: int, points: Sequence[tuple[int, float | None]]) -> bool:
    for next_step, _ in points:
        if next_step <= step:
            return False
        step = next_step
    return True


def _new_series(conn: sqlite3.Connection, run_id: int, key: str) -> Series:
    conn.execute("INSERT OR IGNORE INTO metric_keys(key) VALUES (?)", (key,))
    (series_id,) = conn.execute(
        "INSERT INTO metric_summary(run_id, key_id, count, nonfinite)"
        " SELECT ?, id, 0, 0 FROM metric_keys WHERE key = ? RETURNING id",
        (run_id, key),
    ).fetchone()
    return Series(run_id, key, id=series_id)


def _row(series: Series) -> tuple:
    """For `_UPDATE`."""
    return (
        series.count,
        series.nonfinite,
        series.first_step,
        series.first,
        series.last_step,
        series.last,
        series.low_step,
        series.low,
        series.high_step,
        series.high,
        series.id,
    )


def _close_buckets(conn: sqlite3.Connection, series: int, closed_to: int, last: int) -> None:
    """Write the buckets that became whole when the series' last step moved from `closed_to` to `last`."""
    closed_to = max(closed_to, 0)
    shift = BASE_SHIFT
    for level in range(LEVELS):
        first_bucket, end_bucket = closed_to >> shift, last >> shift
        if first_bucket == end_bucket:
            return  # a coarser bucket ends only where a finer one does
        if level == 0:
            conn.execute(
                f"INSERT INTO metric_pyramid SELECT series, 0, step >> {BASE_SHIFT}, min({_FINITE}), max({_FINITE}),"
                f" total({_FINITE}), count(*), count(*) - count({_FINITE}) FROM points"
                f" WHERE series = ? AND step >= ? AND step < ? GROUP BY step >> {BASE_SHIFT}",
                (series, first_bucket << shift, end_bucket << shift),
            )
        else:
            conn.execute(
                f"INSERT INTO metric_pyramid SELECT series, ?, bucket >> {LEVEL_SHIFT}, min(low), max(high),"
                " total(total), sum(count), sum(nonfinite) FROM metric_pyramid"
                f" WHERE series = ? AND level = ? AND bucket >= ? AND bucket < ? GROUP BY bucket >> {LEVEL_SHIFT}",
                (level, series, level - 1, first_bucket << LEVEL_SHIFT, end_bucket << LEVEL_SHIFT),
            )
        shift += LEVEL_SHIFT


def _drop_buckets(conn: sqlite3.Connection, series: int, step: int) -> None:
    """Forget the buckets that hold `step` or lie beyond it."""
    conn.executemany(
        "DELETE FROM metric_pyramid WHERE series = ? AND level = ? AND bucket >= ?",
        [(series, level, step >> (BASE_SHIFT + LEVEL_SHIFT * level)) for level in range(LEVELS)],
    )


def _recount(conn: sqlite3.Connection, series: Series) -> Series:
    """Count a series' summary from its points; reads them all, which 1 million take 0.2 s for."""
    count, finite = conn.execute(
        f"SELECT count(*), count({_FINITE}) FROM points WHERE series = ?", (series.id,)
    ).fetchone()

    def point(where: str, order: str) -> tuple[int | None, float | None]:
        query = f"SELECT step, value FROM points WHERE series = ? {where} ORDER BY {order} LIMIT 1"
        return conn.execute(query, (series.id,)).fetchone() or (None, None)

    finite_only = f"AND {_FINITE} IS NOT NULL"
    low_step, low = point(finite_only, "value, step")
    high_step, high = point(finite_only, "value DESC, step")
    first_step, first = point("", "step")
    last_step, last = point("", "step DESC")
    counted = replace(
        series,
        count=count,
        nonfinite=count - finite,
        first_step=-1 if first_step is None else first_step,
        first=first,
        last_step=-1 if last_step is None else last_step,
        last=last,
        low_step=low_step,
        low=low,
        high_step=high_step,
        high=high,
    )
    conn.execute(_UPDATE, _row(counted))
    return counted
