"""GPU readings kept for the record, and forgotten after a while. Its SQL is the only one apart from runs."""

import sqlite3
from collections.abc import Iterable

from engine.store.connect import write
from engine.store.records import GpuReading

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


def forget_gpu_readings(conn: sqlite3.Connection, before: float) -> int:
    """Delete readings older than `before`; how many."""
    with write(conn):
        return conn.execute("DELETE FROM gpu_samples WHERE time < ?", (before,)).rowcount
