"""What may be done to runs: the queue's operations.

Each change of state is one guarded statement that names the states it starts from, and its Outcome says whether it
won. So two processes may try the same thing at once: one wins, the other gets the reason. Front ends make requests;
only the daemon claims and finishes.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from engine.base.errors import encodable
from engine.base.messages import msg
from engine.store import series
from engine.store.rows import RUN_COLUMNS, run_of, template_of
from engine.store.run_records import ACTIVE, ENDED, NewRun, Outcome, Run, RunState
from engine.store.store_errors import StoreError
from engine.store.transactions import write

_ACTIVE = ", ".join(f"'{state}'" for state in sorted(ACTIVE))
_ENDED = ", ".join(f"'{state}'" for state in sorted(ENDED))
_QUEUE_ORDER = "priority DESC, position, id"
LAST_ID = "last_run_id"
"""The name in `meta` of the largest id ever given."""
_NEW_ATTEMPT = (
    "state = 'starting', wanted = NULL, gpus = ?, host = ?, pid = ?, pid_started = ?,"
    " busy_seconds = busy_seconds + coalesce(max(finished - started, 0), 0), started = ?, finished = NULL,"
    " attempts = attempts + 1, beat = ?, beat_due = NULL, not_before = NULL, wait_kind = NULL, wait_reason = NULL,"
    " phase = NULL,"
    " reason = NULL, error = NULL, exit_code = NULL"
)


_OFF_QUEUE = "taken off the queue"
_EXPLAINED = (
    "pid = NULL, pid_started = NULL, reason = coalesce(?, reason), reason_template = coalesce(?, reason_template),"
    " error = coalesce(?, error), exit_code = coalesce(?, exit_code)"
)
"""None leaves a column as it is; a template whose reason was replaced is disregarded (`rows`)."""


# into the queue


def add(
    conn: sqlite3.Connection, new: NewRun, run_id: int | None = None, prepare: Callable[[int], None] | None = None
) -> int:
    """Queue one run and return its id: the given one (its folder was made first), else the next never used.

    `prepare(id)` is called before anyone can see the run; it makes the folder and config that its worker will read.
    """
    return add_all(conn, [new], prepare, None if run_id is None else [run_id])[0]


def add_all(
    conn: sqlite3.Connection,
    runs: Iterable[NewRun],
    prepare: Callable[[int], None] | None = None,
    run_ids: Iterable[int] | None = None,
) -> list[int]:
    """Queue several runs, all or none."""
    own_ids = list(run_ids) if run_ids is not None else None
    added: list[int] = []
    with write(conn):
        for index, new in enumerate(runs):
            run_id = own_ids[index] if own_ids is not None else last_id(conn) + 1
            if own_ids is not None and conn.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone():
                raise StoreError(msg("run {run_id} is in the store already", run_id=run_id))
            conn.execute(
                "INSERT INTO meta(name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET"
                " value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
                (LAST_ID, run_id),
            )
            if prepare:
                prepare(run_id)
            _insert(conn, run_id, new)
            added.append(run_id)
    return added


def last_id(conn: sqlite3.Connection) -> int:
    """The largest id ever given, 0 for none: beyond it, the folder of a deleted run never becomes another's."""
    return conn.execute(
        "SELECT max(coalesce((SELECT max(id) FROM runs), 0),"
        " coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = ?), 0))",
        (LAST_ID,),
    ).fetchone()[0]


def _insert(conn: sqlite3.Connection, run_id: int, new: NewRun) -> None:
    for dependency in new.after:
        if dependency == run_id or not conn.execute("SELECT 1 FROM runs WHERE id = ?", (dependency,)).fetchone():
            raise StoreError(
                msg(
                    "run {run_id} cannot wait for run {dependency}: there is no such run",
                    run_id=run_id,
                    dependency=dependency,
                ),
                "`finetop ls` lists them.",
            )
    now = time.time() if new.created is None else new.created
    values = {
        "id": run_id,
        "name": new.name,
        "state": RunState.QUEUED.value,
        "held": int(new.held),
        "priority": new.priority,
        "position": conn.execute("SELECT coalesce(max(position), 0) + 1 FROM runs WHERE state = 'queued'").fetchone()[
            0
        ],
        "sweep": new.sweep,
        "tags": _json(list(new.tags)),
        "note": new.note,
        "preset": new.preset,
        "model": new.model,
        "data": new.data,
        "method": new.method,
        "objective": new.objective,
        "parent_run": new.parent_run,
        "parent_step": new.parent_step,
        "gpus_wanted": new.gpus_wanted,
        "gpus_pinned": _json(list(new.gpus_pinned)),
        "gpus": "[]",
        "share": int(new.share),
        "estimate_bytes": new.estimate_bytes,
        "estimate_seconds": new.estimate_seconds,
        "retries": new.retries,
        "created": now,
        "queued": now,
        "total_steps": new.total_steps,
    }
    conn.execute(
        f"INSERT INTO runs({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
        [encodable(value) if isinstance(value, str) else value for value in values.values()],
    )
    put_settings(conn, run_id, new.settings, new.origins)
    conn.executemany(
        "INSERT OR IGNORE INTO dependencies VALUES (?, ?)", [(run_id, dependency) for dependency in new.after]
    )


def put_settings(
    conn: sqlite3.Connection, run_id: int, settings: Mapping[str, Any], origins: Mapping[str, str] | None = None
) -> None:
    """Replace the run's settings (edit of a queued run, rebuild)."""
    with write(conn):
        conn.execute("DELETE FROM settings WHERE run_id = ?", (run_id,))
        conn.executemany(
            "INSERT INTO settings VALUES (?, ?, ?, ?)",
            [(run_id, key, _json(value), (origins or {}).get(key, "")) for key, value in settings.items()],
        )


# from the queue to its end: the daemon


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
            (_json([str(gpu) for gpu in gpus]), host, None, None, now, now, run_id),
        ).fetchone()
    return run_of(row) if row else None


def started(conn: sqlite3.Connection, run_id: int, pid: int, pid_started: float) -> Outcome:
    """Remember the worker's process."""
    return _change(conn, run_id, f"pid = ?, pid_started = ? WHERE id = ? AND state IN ({_ACTIVE})", (pid, pid_started))


def begin(conn: sqlite3.Connection, run_id: int, pid: int | None, pid_started: float | None, host: str) -> Outcome:
    """A worker that nobody claimed the run for has it, such as that of `finetop train`: the daemon takes it over."""
    now = time.time()
    return _change(
        conn,
        run_id,
        f"{_NEW_ATTEMPT}, held = 0 WHERE id = ? AND state IN ('queued', {_ENDED}) AND trashed IS NULL",
        ("[]", host, pid, pid_started, now, now),
    )


def unclaim(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Give back a run whose worker never came to life; it keeps its place."""
    return _change(
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
    return _change(
        conn,
        run_id,
        f"state = ?, finished = ?, wanted = NULL, beat_due = NULL, phase = NULL, {_EXPLAINED}"
        f" WHERE id = ? AND state IN ({_ACTIVE})",
        (state.value, time.time(), reason, template_of(reason), error, exit_code),
    )


def explain(
    conn: sqlite3.Connection,
    run_id: int,
    reason: str | None = None,
    error: str | None = None,
    exit_code: int | None = None,
) -> Outcome:
    """Add to a run that has ended what became known about it afterwards; its process is gone."""
    return _change(
        conn,
        run_id,
        f"{_EXPLAINED} WHERE id = ? AND state IN ({_ENDED})",
        (reason, template_of(reason), error, exit_code),
    )


def interrupt(conn: sqlite3.Connection, run_id: int, reason: str) -> Outcome:
    """Nobody requested the end of a run that its journal says was stopped: something else ended its worker."""
    return _change(
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
                f"UPDATE {table} SET time = time + :by WHERE run_id IN (SELECT id FROM runs WHERE state IN ({_ACTIVE}))"
                f" AND time >= (SELECT started FROM runs WHERE id = {table}.run_id)",
                {"by": seconds},
            )
        conn.execute(
            "UPDATE runs SET started = started + :by, beat = beat + :by, beat_due = beat_due + :by"
            f" WHERE state IN ({_ACTIVE})",
            {"by": seconds},
        )
        conn.execute(
            "UPDATE runs SET not_before = not_before + ? WHERE state = 'queued' AND not_before IS NOT NULL", (seconds,)
        )


def set_waiting(conn: sqlite3.Connection, reasons: Mapping[int, tuple[str, str]]) -> int:
    """Keep why each waiting run waits, as (kind, reason); writes only what has changed. How many did."""
    stored = {
        run_id: (kind, reason)
        for run_id, kind, reason in conn.execute("SELECT id, wait_kind, wait_reason FROM runs WHERE state = 'queued'")
    }
    changed = [
        (kind, reason, template_of(reason), run_id)
        for run_id, (kind, reason) in reasons.items()
        if run_id in stored and stored[run_id] != (kind, reason)
    ]
    if changed:
        with write(conn):
            conn.executemany(
                "UPDATE runs SET wait_kind = ?, wait_reason = ?, wait_template = ? WHERE id = ? AND state = 'queued'",
                changed,
            )
    return len(changed)


def note(
    conn: sqlite3.Connection,
    run_id: int,
    kind: str,
    message: str,
    step: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Put an event on record that the run's worker could not write itself: a retry, a kill, changed data."""
    with write(conn):
        conn.execute(
            "INSERT INTO events(run_id, time, source, kind, step, message, templates, detail)"
            " VALUES (?, ?, 'queue', ?, ?, ?, ?, ?)",
            (run_id, time.time(), kind, step, message, _templates(message), _json(dict(detail or {}))),
        )


# requests of people: any process


def request(conn: sqlite3.Connection, run_id: int, signal: str) -> Outcome:
    """Ask for 'stop' (save, then exit) or 'kill'. A waiting run is stopped at once; a kill is never softened.

    What an earlier attempt left, when it ended and why, stands: the time in the queue after it was no work.
    """
    if signal not in ("stop", "kill"):
        raise ValueError(f"no such request: {signal}")
    with write(conn):
        outcome = _change(
            conn,
            run_id,
            f"state = 'stopped', finished = coalesce(finished, ?), reason = coalesce(reason, '{_OFF_QUEUE}')"
            " WHERE id = ? AND state = 'queued' AND trashed IS NULL",
            (time.time(),),
        )
        if outcome:
            return outcome
        soften = "" if signal == "kill" else " AND wanted IS NOT 'kill'"
        return _change(conn, run_id, f"wanted = ? WHERE id = ? AND state IN ({_ACTIVE}){soften}", (signal,))


def resume(
    conn: sqlite3.Connection, run_id: int, from_step: int | None = None, not_before: float | None = None
) -> Outcome:
    """Queue an ended run again, behind the others of its priority, to go on from a checkpoint (None: its latest); held,
    if it was when it was taken off the queue."""
    return _change(
        conn,
        run_id,
        "state = 'queued', wanted = NULL, resume_step = ?, not_before = ?, queued = ?, wait_kind = NULL,"
        " wait_reason = NULL, position = (SELECT coalesce(max(position), 0) + 1 FROM runs WHERE state = 'queued')"
        f" WHERE id = ? AND state IN ({_ENDED}) AND trashed IS NULL",
        (from_step, not_before, time.time()),
    )


def put_back(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Undo that a waiting run was taken off the queue: to its place, held if it was, with what it had been before."""
    return _change(
        conn,
        run_id,
        f"state = 'queued', finished = CASE WHEN reason = '{_OFF_QUEUE}' THEN NULL ELSE finished END,"
        f" reason = nullif(reason, '{_OFF_QUEUE}') WHERE id = ? AND state = 'stopped' AND trashed IS NULL",
        (),
    )


def hold(conn: sqlite3.Connection, run_id: int) -> Outcome:
    return _change(conn, run_id, "held = 1 WHERE id = ? AND state = 'queued' AND trashed IS NULL", ())


def release(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Let a held run, or one that pauses before a retry, take its turn."""
    return _change(
        conn, run_id, "held = 0, not_before = NULL WHERE id = ? AND state = 'queued' AND trashed IS NULL", ()
    )


def move(conn: sqlite3.Connection, run_id: int, to: int | str) -> Outcome:
    """Put a waiting run at a place of the queue (0 is the front), or 'up', 'down', 'top', 'bottom'.

    The place is kept whatever the priorities: a run moved in between others of another priority takes theirs.
    """
    with write(conn):
        order = [
            list(row)
            for row in conn.execute(
                "SELECT id, priority, position FROM runs WHERE state = 'queued' AND trashed IS NULL"
                f" ORDER BY {_QUEUE_ORDER}"
            )
        ]
        position = next((position for position, row in enumerate(order) if row[0] == run_id), None)
        if position is None:
            return _lost(conn, run_id)
        targets = {"up": position - 1, "down": position + 1, "top": 0, "bottom": len(order) - 1}
        target = targets[to] if isinstance(to, str) else to
        target = min(max(target, 0), len(order) - 1)
        moved = order.pop(position)
        above = order[target - 1][1] if target else None
        below = order[target][1] if target < len(order) else None
        if above is not None and moved[1] > above:
            moved[1] = above
        if below is not None and moved[1] < below:
            moved[1] = below
        order.insert(target, moved)
        conn.executemany(
            "UPDATE runs SET priority = ?, position = ? WHERE id = ?",
            [(row[1], position, row[0]) for position, row in enumerate(order, 1) if row[2] != position or row is moved],
        )
        return Outcome(True, run_id, RunState.QUEUED)


_EDITABLE = frozenset({"name", "note", "tags", "sweep", "share", "retries", "estimate_bytes", "estimate_seconds"})
_EDITABLE_WAITING = frozenset({"gpus_wanted", "gpus_pinned", "total_steps", "model", "data", "method", "preset"})


def edit(conn: sqlite3.Connection, run_id: int, **changes: Any) -> Outcome:
    """Change a run's name, note, tags and the like at any time; what it asks for only while it waits."""
    unknown = changes.keys() - _EDITABLE - _EDITABLE_WAITING
    if unknown:
        raise ValueError(f"cannot edit {', '.join(sorted(unknown))}")
    guard = " AND state = 'queued'" if changes.keys() & _EDITABLE_WAITING else ""
    values = [_json(list(value)) if isinstance(value, (tuple, list)) else value for value in changes.values()]
    return _change(conn, run_id, f"{', '.join(f'{name} = ?' for name in changes)} WHERE id = ?{guard}", values)


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
                (_json(["latest", *kept]), run_id, newest[0]),
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
                "UPDATE checkpoints SET kept = ? WHERE run_id = ? AND step = ?", (_json(remaining), run_id, other)
            )
        conn.execute(
            "UPDATE checkpoints SET removed = NULL, kept = ?, pinned = ? WHERE run_id = ? AND step = ?",
            (_json(list(kept)), int(pinned), run_id, step),
        )


def trash(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Hide a run that is not active; a waiting one never starts. The caller moves its folder, before or after."""
    return _change(
        conn, run_id, f"trashed = ? WHERE id = ? AND trashed IS NULL AND state NOT IN ({_ACTIVE})", (time.time(),)
    )


def restore(conn: sqlite3.Connection, run_id: int, held: bool = True) -> Outcome:
    """Take a run back out of the trash as it was; a waiting one comes back held, since time has passed."""
    return _change(
        conn,
        run_id,
        "trashed = NULL, held = CASE WHEN state = 'queued' THEN ? ELSE held END WHERE id = ? AND trashed IS NOT NULL",
        (int(held),),
    )


def purge(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Delete a trashed run's rows for good. Its id is never given again."""
    with write(conn):
        if not conn.execute("SELECT 1 FROM runs WHERE id = ? AND trashed IS NOT NULL", (run_id,)).fetchone():
            return Outcome(False, run_id, _state(conn, run_id), msg("run {run_id} is not in the trash", run_id=run_id))
        series.drop_run(conn, run_id)
        for table in ("settings", "dependencies", "events", "checkpoints", "evaluations", "samples", "gpu_samples"):
            conn.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))
        conn.execute("DELETE FROM runs WHERE id = ?", (run_id,))
        return Outcome(True, run_id)


def set_meta(conn: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a small value by its name, such as when a user last looked (`seen:kim`)."""
    with write(conn):
        conn.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value))


# shared


def _change(conn: sqlite3.Connection, run_id: int, set_where: str, values: Iterable[Any]) -> Outcome:
    """One guarded UPDATE; `set_where` is 'a = ? WHERE id = ? ...', its first values those before the id."""
    with write(conn):
        row = conn.execute(f"UPDATE runs SET {set_where} RETURNING state", (*values, run_id)).fetchone()
        return Outcome(True, run_id, RunState(row[0])) if row else _lost(conn, run_id)


_WHY = {
    RunState.QUEUED: "is still waiting",
    RunState.STARTING: "is starting",
    RunState.RUNNING: "is running",
    RunState.DONE: "has already finished",
    RunState.STOPPED: "has been stopped",
    RunState.FAILED: "has failed",
    RunState.INTERRUPTED: "was interrupted",
}


def _lost(conn: sqlite3.Connection, run_id: int) -> Outcome:
    row = conn.execute("SELECT state, trashed, wanted FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        return Outcome(False, run_id, None, msg("there is no run {run_id}", run_id=run_id))
    state = RunState(row[0])
    if row[1] is not None:
        return Outcome(False, run_id, state, msg("run {run_id} is in the trash", run_id=run_id))
    if row[2] == "kill":
        return Outcome(False, run_id, state, msg("run {run_id} is being killed", run_id=run_id))
    return Outcome(False, run_id, state, f"run {run_id} {_WHY[state]}")


def _templates(message: str) -> str | None:
    """Of an event, by the field's name."""
    template = template_of(message)
    return None if template is None else f'{{"message":{template}}}'


def _state(conn: sqlite3.Connection, run_id: int) -> RunState | None:
    row = conn.execute("SELECT state FROM runs WHERE id = ?", (run_id,)).fetchone()
    return RunState(row[0]) if row else None


def _json(value: Any) -> str:
    """What is not UTF-8, such as bytes of a file's name, as JSON's own escape."""
    return encodable(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))
