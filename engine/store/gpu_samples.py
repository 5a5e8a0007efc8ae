"""What the monitor saw: readings of the GPUs, forgotten after a while, and points of the runs that were on them."""

import sqlite3
from collections.abc import Iterable, Mapping

from engine.store import series
from engine.store.downsample import downsample
from engine.store.run_records import GpuReading
from engine.store.transactions import write

_COLUMNS = "gpu, time, run_id, utilisation, memory_bytes, power_watts, temperature"


def add_gpu_readings(conn: sqlite3.Connection, readings: Iterable[GpuReading]) -> None:
    """Keep readings; several seconds' worth at once costs one commit."""
    with write(conn):
        conn.executemany(
            f"INSERT OR REPLACE INTO gpu_samples({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(r.gpu, r.time, r.run_id, r.utilisation, r.memory_bytes, r.power_watts, r.temperature) for r in readings],
        )


def gpu_readings(
    conn: sqlite3.Connection, gpu: str | None = None, run_id: int | None = None, since: float = 0.0
) -> tuple[GpuReading, ...]:
    """Readings of a GPU, or of the GPUs a run had, in order of time."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM gpu_samples WHERE (? IS NULL OR gpu = ?) AND (? IS NULL OR run_id = ?) AND time >= ?"
        " ORDER BY time, gpu",
        (gpu, gpu, run_id, run_id, since),
    )
    return tuple(GpuReading(*row) for row in rows)


def replace_gpu_readings(conn: sqlite3.Connection, since: float, before: float, readings: Iterable[GpuReading]) -> None:
    """Put fewer readings in the place of those in [since, before)."""
    with write(conn):
        conn.execute("DELETE FROM gpu_samples WHERE time >= ? AND time < ?", (since, before))
        add_gpu_readings(conn, readings)


def thin_gpu_readings(conn: sqlite3.Connection, since: float, before: float, now: float) -> None:
    """Put what `downsample` makes of the readings in [since, before) in their place."""
    readings = [reading for reading in gpu_readings(conn, since=since) if reading.time < before]
    fewer = downsample(readings, now)
    if len(fewer) < len(readings):
        replace_gpu_readings(conn, since, before, fewer)


def add_run_readings(conn: sqlite3.Connection, run_id: int, step: int, values: Mapping[str, float]) -> int:
    """Points of a run that its journal does not hold, such as `gpu/util`, at a step it has logged; how many were new.

    A step that has such a point already keeps it: they are means over the time until then.
    """
    with write(conn):
        by_key = series.summaries(conn, run_id)
        fresh = {
            key: [(step, value)] for key, value in values.items() if key not in by_key or by_key[key].last_step < step
        }
        return series.add_points(conn, run_id, fresh, by_key)


def forget_gpu_readings(conn: sqlite3.Connection, before: float) -> int:
    """Delete readings older than `before`; how many."""
    with write(conn):
        return conn.execute("DELETE FROM gpu_samples WHERE time < ?", (before,)).rowcount
