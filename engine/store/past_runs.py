"""What earlier runs of a workspace took, for planning the next: speed, and memory predicted and measured."""

import sqlite3
from dataclasses import dataclass

from engine.store.rows import mapping


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run. None: it has not said so."""

    run_id: int
    model: str
    method: str
    device: str
    """'cpu', or the name of the GPU; empty where the run has not reported it."""
    tokens_per_second: float | None
    predicted_bytes: int | None
    """Peak memory by arithmetic, for the passes it really made."""
    measured_bytes: int | None
    """Peak memory as it was: what the CUDA allocator handed out, or the process' resident memory."""


def past_runs(conn: sqlite3.Connection) -> tuple[PastRun, ...]:
    """All runs that made steps in this workspace, oldest first."""
    rows = conn.execute(
        "SELECT r.id, r.model, r.method, r.tokens_per_second,"
        " (SELECT detail FROM events e WHERE e.run_id = r.id AND e.kind = 'model' ORDER BY e.id DESC LIMIT 1),"
        " (SELECT detail FROM events e WHERE e.run_id = r.id AND e.kind = 'memory' ORDER BY e.id DESC LIMIT 1)"
        " FROM runs r WHERE r.step > 0 ORDER BY r.id"
    )
    runs = []
    for number, model, method, speed, described, memory in rows:
        described, memory = mapping(described), mapping(memory)
        device = str(described.get("device") or "")
        runs.append(
            PastRun(
                number,
                model,
                method,
                device,
                speed,
                _whole(memory.get("predicted_bytes")),
                _whole(memory.get("peak_bytes")),
            )
        )
    return tuple(runs)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
