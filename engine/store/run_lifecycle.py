"""A run from its claim to its end: what the daemon puts on record. What people request lies in `queue`."""

import sqlite3
import time
from collections.abc import Iterable

from engine.store.rows import RUN_COLUMNS, run_of, template_of
from engine.store.run_changes import ACTIVE_STATES, ENDED_STATES, change, to_json
from engine.store.run_records import ENDED, Outcome, Run, RunState
from engine.store.transactions import write

_NEW_ATTEMPT = (
    "state = 'starting', wanted = NULL, gpus = ?, host = ?, pid = ?, pid_started = ?,"
    " busy_seconds = busy_seconds + coalesce(max(finished - started, 0), 0), started = ?, finished = NULL,"
    " attempts = attempts + 1, beat = ?, beat_due = NULL, not_before = NULL, wait_kind = NULL, wait_reason = NULL,"
    " phase = NULL,"
    " reason = NULL, error = NULL, exit_code = NULL"
)
_EXPLAINED = (
    "pid = NULL, pid_started = NULL, reason = coalesce(?, reason), reason_template = coalesce(?, reason_template),"
    " error = coalesce(?, error), exit_code = coalesce(?, exit_code)"
)
"""None leaves a column as it is; a template whose reason was replaced is disregarded (`rows`)."""


def claim(conn: sqlite3.Connection, run_id: int, gpus: Iterable[str] = (), host: str | None = None) -> Run | None:
    """Take a waiting run for starting. None: another process has it, or it may not start (any more)."""
    now = time.time()
    with write(conn):
        row = conn.execute(
            f"""
            UPDATE runs SET {_NEW_ATTEMPT}
            WHERE id = ? AND state = 'queued' AND NOT held AND trashed IS NULL AND NOT EXISTS (
                SELECT 1 FROM dependencies d LEFT JOIN runs r ON r.id = d.after_id
                WHERE d.run_id = runs.id AND r.state IS NOT 'done')
            RETURNING {RUN_COLUMNS}
            """,
            (to_json([str(gpu) for gpu in gpus]), host, None, None, now, now, run_id),
        ).fetchone()
    return run_of(row) if row else None


def started(conn: sqlite3.Connection, run_id: int, pid: int, pid_started: float) -> Outcome:
    """Remember the worker's process."""
    return change(
        conn, run_id, f"pid = ?, pid_started = ? WHERE id = ? AND state IN ({ACTIVE_STATES})", (pid, pid_started)
    )


def begin(conn: sqlite3.Connection, run_id: int, pid: int | None, pid_started: float | None, host: str) -> Outcome:
    """A worker that nobody claimed the run for has it, such as that of `finetop train`: the daemon takes it over."""
    now = time.time()
    return change(
        conn,
        run_id,
        f"{_NEW_ATTEMPT}, held = 0 WHERE id = ? AND state IN ('queued', {ENDED_STATES}) AND trashed IS NULL",
        ("[]", host, pid, pid_started, now, now),
    )


def unclaim(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Give back a run whose worker never came to life; it keeps its place."""
    return change(
        conn,
        run_id,
        "state = 'queued', gpus = '[]', attempts = attempts - 1, phase = NULL WHERE id = ? AND state = 'starting'",
        (),
    )


def finish(
    conn: sqlite3.Connection,
    run_id: int,
    state: RunState,
    reason: str | None = None,
    error: str | None = None,
    exit_code: int | None = None,
) -> Outcome:
    """End an active run. What its journal already said (import it first) stands; None leaves a field as it is."""
    if state not in ENDED:
        raise ValueError(f"{state} is no end")
    return change(
        conn,
        run_id,
        f"state = ?, finished = ?, wanted = NULL, beat_due = NULL, phase = NULL, {_EXPLAINED}"
        f" WHERE id = ? AND state IN ({ACTIVE_STATES})",
        (state.value, time.time(), reason, template_of(reason), error, exit_code),
    )


def refuse(conn: sqlite3.Connection, run_id: int, why: str) -> Outcome:
    """End a waiting run as failed."""
    first = why.splitlines()[0] if why else why
    return change(
        conn,
        run_id,
        f"state = 'failed', finished = ?, {_EXPLAINED} WHERE id = ? AND state = 'queued' AND trashed IS NULL",
        (time.time(), first, template_of(first), why, None),
    )


def explain(
    conn: sqlite3.Connection,
    run_id: int,
    reason: str | None = None,
    error: str | None = None,
    exit_code: int | None = None,
) -> Outcome:
    """Add to a run that has ended what became known about it afterwards; its process is gone."""
    return change(
        conn,
        run_id,
        f"{_EXPLAINED} WHERE id = ? AND state IN ({ENDED_STATES})",
        (reason, template_of(reason), error, exit_code),
    )


def interrupt(conn: sqlite3.Connection, run_id: int, reason: str) -> Outcome:
    """Nobody requested the end of a run that its journal says was stopped: something else ended its worker."""
    return change(
        conn,
        run_id,
        "state = 'interrupted', reason = ?, reason_template = ? WHERE id = ? AND state = 'stopped'",
        (reason, template_of(reason)),
    )


def clock_moved(conn: sqlite3.Connection, seconds: float) -> None:
    """The clock was set by so much: what is going on, or waits for a time, is moved along."""
    with write(conn):
        for table in ("events", "checkpoints", "evaluations", "samples"):
            conn.execute(
                f"UPDATE {table} SET time = time + :by"
                f" WHERE run_id IN (SELECT id FROM runs WHERE state IN ({ACTIVE_STATES}))"
                f" AND time >= (SELECT started FROM runs WHERE id = {table}.run_id)",
                {"by": seconds},
            )
        conn.execute(
            "UPDATE runs SET started = started + :by, beat = beat + :by, beat_due = beat_due + :by"
            f" WHERE state IN ({ACTIVE_STATES})",
            {"by": seconds},
        )
        conn.execute(
            "UPDATE runs SET not_before = not_before + ? WHERE state = 'queued' AND not_before IS NOT NULL", (seconds,)
        )
