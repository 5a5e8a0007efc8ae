"""What front ends do to runs: queue them, move them, stop them, edit and delete them.

What the daemon does, from the claim to the end, lies in `run_lifecycle`; what is done to checkpoints, in
`checkpoint_rows`.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.base.errors import encodable
from engine.base.messages import msg
from engine.store import series
from engine.store.rows import template_of
from engine.store.run_changes import ACTIVE_STATES, ENDED_STATES, change, lost, to_json
from engine.store.run_records import NewRun, Outcome, RunState
from engine.store.store_errors import StoreError
from engine.store.transactions import write

_QUEUE_ORDER = "priority DESC, position, id"
LAST_ID = "last_run_id"
"""The name in `meta` of the largest id ever given."""
_OFF_QUEUE = "taken off the queue"


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
        "tags": to_json(list(new.tags)),
        "note": new.note,
        "preset": new.preset,
        "model": new.model,
        "data": new.data,
        "method": new.method,
        "objective": new.objective,
        "parent_run": new.parent_run,
        "parent_step": new.parent_step,
        "gpus_wanted": new.gpus_wanted,
        "gpus_pinned": to_json(list(new.gpus_pinned)),
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
            [(run_id, key, to_json(value), (origins or {}).get(key, "")) for key, value in settings.items()],
        )


# from the queue to its end: the daemon


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
            (run_id, time.time(), kind, step, message, _templates(message), to_json(dict(detail or {}))),
        )


# requests of people: any process


def request(conn: sqlite3.Connection, run_id: int, signal: str) -> Outcome:
    """Ask for 'stop' (save, then exit) or 'kill'. A waiting run is stopped at once; a kill is never softened.

    What an earlier attempt left, when it ended and why, stands: the time in the queue after it was no work.
    """
    if signal not in ("stop", "kill"):
        raise ValueError(f"no such request: {signal}")
    with write(conn):
        outcome = change(
            conn,
            run_id,
            f"state = 'stopped', finished = coalesce(finished, ?), reason = coalesce(reason, '{_OFF_QUEUE}')"
            " WHERE id = ? AND state = 'queued' AND trashed IS NULL",
            (time.time(),),
        )
        if outcome:
            return outcome
        soften = "" if signal == "kill" else " AND wanted IS NOT 'kill'"
        return change(conn, run_id, f"wanted = ? WHERE id = ? AND state IN ({ACTIVE_STATES}){soften}", (signal,))


def resume(
    conn: sqlite3.Connection, run_id: int, from_step: int | None = None, not_before: float | None = None
) -> Outcome:
    """Queue an ended run again, behind the others of its priority, to go on from a checkpoint (None: its latest); held,
    if it was when it was taken off the queue."""
    return change(
        conn,
        run_id,
        "state = 'queued', wanted = NULL, resume_step = ?, not_before = ?, queued = ?, wait_kind = NULL,"
        " wait_reason = NULL, position = (SELECT coalesce(max(position), 0) + 1 FROM runs WHERE state = 'queued')"
        f" WHERE id = ? AND state IN ({ENDED_STATES}) AND trashed IS NULL",
        (from_step, not_before, time.time()),
    )


def put_back(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Undo that a waiting run was taken off the queue: to its place, held if it was, with what it had been before."""
    return change(
        conn,
        run_id,
        f"state = 'queued', finished = CASE WHEN reason = '{_OFF_QUEUE}' THEN NULL ELSE finished END,"
        f" reason = nullif(reason, '{_OFF_QUEUE}') WHERE id = ? AND state = 'stopped' AND trashed IS NULL",
        (),
    )


def hold(conn: sqlite3.Connection, run_id: int) -> Outcome:
    return change(conn, run_id, "held = 1 WHERE id = ? AND state = 'queued' AND trashed IS NULL", ())


def release(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Let a held run, or one that pauses before a retry, take its turn. Why it waited until now is no longer so."""
    changes = "held = 0, not_before = NULL, wait_kind = NULL, wait_reason = NULL, wait_template = NULL"
    return change(conn, run_id, f"{changes} WHERE id = ? AND state = 'queued' AND trashed IS NULL", ())


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
            return lost(conn, run_id)
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
    values = [to_json(list(value)) if isinstance(value, (tuple, list)) else value for value in changes.values()]
    return change(conn, run_id, f"{', '.join(f'{name} = ?' for name in changes)} WHERE id = ?{guard}", values)


def trash(conn: sqlite3.Connection, run_id: int) -> Outcome:
    """Hide a run that is not active; a waiting one never starts. The caller moves its folder, before or after."""
    return change(
        conn, run_id, f"trashed = ? WHERE id = ? AND trashed IS NULL AND state NOT IN ({ACTIVE_STATES})", (time.time(),)
    )


def restore(conn: sqlite3.Connection, run_id: int, held: bool = True) -> Outcome:
    """Take a run back out of the trash as it was; a waiting one comes back held, since time has passed."""
    return change(
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


def _templates(message: str) -> str | None:
    """Of an event, by the field's name."""
    template = template_of(message)
    return None if template is None else f'{{"message":{template}}}'


def _state(conn: sqlite3.Connection, run_id: int) -> RunState | None:
    row = conn.execute("SELECT state FROM runs WHERE id = ?", (run_id,)).fetchone()
    return RunState(row[0]) if row else None
