"""What is done to checkpoints beside their run's journal: pinned, deleted, taken back from the trash."""

import json
import sqlite3
import time
from collections.abc import Sequence

from engine.store.run_changes import to_json
from engine.store.transactions import write


def pin(conn: sqlite3.Connection, run_id: int, step: int, pinned: bool = True) -> bool:
    """Keep a checkpoint whatever the retention says. False if there is none at that step."""
    with write(conn):
        cursor = conn.execute(
            "UPDATE checkpoints SET pinned = ? WHERE run_id = ? AND step = ? AND removed IS NULL",
            (int(pinned), run_id, step),
        )
        return cursor.rowcount > 0


def checkpoint_removed(conn: sqlite3.Connection, run_id: int, step: int) -> bool:
    """A front end deleted a checkpoint's folder; the newest of the others is the latest now. False if it was gone."""
    with write(conn):
        cursor = conn.execute(
            "UPDATE checkpoints SET removed = ?, kept = '[]', pinned = 0"
            " WHERE run_id = ? AND step = ? AND removed IS NULL",
            (time.time(), run_id, step),
        )
        newest = conn.execute(
            "SELECT step, kept FROM checkpoints WHERE run_id = ? AND removed IS NULL ORDER BY step DESC LIMIT 1",
            (run_id,),
        ).fetchone()
        if newest and "latest" not in (kept := json.loads(newest[1] or "[]")):
            conn.execute(
                "UPDATE checkpoints SET kept = ? WHERE run_id = ? AND step = ?",
                (to_json(["latest", *kept]), run_id, newest[0]),
            )
        return cursor.rowcount > 0


def checkpoint_restored(conn: sqlite3.Connection, run_id: int, step: int, kept: Sequence[str], pinned: bool) -> None:
    """A removed checkpoint is there again, under the names `kept`, which no other has any more."""
    with write(conn):
        for other, labels in conn.execute(
            "SELECT step, kept FROM checkpoints WHERE run_id = ? AND removed IS NULL", (run_id,)
        ).fetchall():
            remaining = [label for label in json.loads(labels or "[]") if label not in kept]
            conn.execute(
                "UPDATE checkpoints SET kept = ? WHERE run_id = ? AND step = ?", (to_json(remaining), run_id, other)
            )
        conn.execute(
            "UPDATE checkpoints SET removed = NULL, kept = ?, pinned = ? WHERE run_id = ? AND step = ?",
            (to_json(list(kept)), int(pinned), run_id, step),
        )
