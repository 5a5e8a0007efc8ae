"""Changes of a run's row.

Each change of state is one guarded statement that names the states it starts from, and its Outcome says whether it
won. So two processes may try the same thing at once: one wins, the other gets the reason.
"""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from engine.base.errors import encodable
from engine.base.messages import msg
from engine.store.run_records import ACTIVE, ENDED, Outcome, RunState
from engine.store.transactions import write

ACTIVE_STATES = ", ".join(f"'{state}'" for state in sorted(ACTIVE))
ENDED_STATES = ", ".join(f"'{state}'" for state in sorted(ENDED))
"""For `IN (...)` in SQL."""


def change(conn: sqlite3.Connection, run_id: int, set_where: str, values: Iterable[Any]) -> Outcome:
    """One guarded UPDATE; `set_where` is 'a = ? WHERE id = ? ...', its first values those before the id."""
    with write(conn):
        row = conn.execute(f"UPDATE runs SET {set_where} RETURNING state", (*values, run_id)).fetchone()
        return Outcome(True, run_id, RunState(row[0])) if row else lost(conn, run_id)


_WHY = {
    RunState.QUEUED: "is still waiting",
    RunState.STARTING: "is starting",
    RunState.RUNNING: "is running",
    RunState.DONE: "has already finished",
    RunState.STOPPED: "has been stopped",
    RunState.FAILED: "has failed",
    RunState.INTERRUPTED: "was interrupted",
}


def lost(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Why nothing was changed."""
    row = conn.execute("SELECT state, trashed, wanted FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        return Outcome(False, run_id, None, msg("there is no run {run_id}", run_id=run_id))
    state = RunState(row[0])
    if row[1] is not None:
        return Outcome(False, run_id, state, msg("run {run_id} is in the trash", run_id=run_id))
    if row[2] == "kill":
        return Outcome(False, run_id, state, msg("run {run_id} is being killed", run_id=run_id))
    return Outcome(False, run_id, state, f"run {run_id} {_WHY[state]}")


def to_json(value: Any) -> str:
    """What is not UTF-8, such as bytes of a file's name, as JSON's own escape."""
    return encodable(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))
