"""runs.db made again from the run folders, for when it is lost, damaged, or in doubt.

Each folder's config.json says what the run is and what it was queued with, journal.jsonl what became of it.
What only the old database knew (order and priorities of the queue, notes, tags, pins, the trash) is taken over
as far as it can still be read. The new file is made beside the old one, which is kept; no daemon may be running.
"""

import contextlib
import dataclasses
import json
import os
import platform
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.messages import msg
from engine.base.worker_process import started_at, worker_alive
from engine.base.workspace import PINNED, Workspace, folder_ids
from engine.store import checkpoint_rows, queue, run_lifecycle
from engine.store.connect import writer
from engine.store.journal_import import import_journal
from engine.store.new_run import from_config
from engine.store.run_records import ACTIVE, NewRun, RunState
from engine.store.transactions import write

_TAKEN_OVER = (
    "name", "note", "tags", "sweep", "preset", "priority", "position", "held", "trashed", "share", "estimate_bytes",
    "estimate_seconds", "gpus_wanted", "gpus_pinned", "retries", "attempts", "created", "queued", "parent_run",
    "parent_step", "total_steps", "host",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What `rebuild` made."""

    runs: int
    points: int
    problems: tuple[str, ...]
    old: Path | None
    """Where the old database lies now."""


def rebuild(root: Path) -> Rebuilt:
    """Make `root`/runs.db from `root`/runs/*, and put it in the place of the old one."""
    path = root / "runs.db"
    fresh = root / "runs.db.rebuild"
    for suffix in ("", "-wal", "-shm"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    old_database = OldDatabase(path)
    problems: list[str] = []
    points = 0
    workspace = Workspace(root)
    trashed = [workspace.trash / str(run_id) for run_id in folder_ids(workspace.trash)]
    folders = [*(workspace.runs / str(run_id) for run_id in workspace.run_ids()), *trashed]
    conn = writer(fresh)
    try:
        for folder in folders:
            points += _take(conn, folder, old_database, problems)
        for folder in trashed:
            queue.trash(conn, int(folder.name))
        old_database.restore(conn)
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        conn.close()
    kept_as = None
    if path.exists():
        kept_as = root / f"runs.db.before-rebuild-{time.strftime('%Y%m%d-%H%M%S')}"
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", f"{kept_as}{suffix}")
    os.replace(fresh, path)
    return Rebuilt(len(folders), points, tuple(problems), kept_as)


def _take(conn: sqlite3.Connection, folder: Path, old_database: "OldDatabase", problems: list[str]) -> int:
    run_id = int(folder.name)
    # Nothing starts by surprise: what never ran comes back held, unless it is known not to have been.
    held = bool(old_database.runs.get(run_id, {}).get("held", True))
    waits_for, points = take_in(conn, folder, problems, held)
    old_database.after.setdefault(run_id, set()).update(waits_for)
    return points


def take_in(
    conn: sqlite3.Connection, folder: Path, problems: list[str], held: bool = True
) -> tuple[tuple[int, ...], int]:
    """Put the run of a folder into the store: what its journal says became of it, else a waiting run.

    Returns the runs it was to wait for, which may not be there yet, and the number of points.
    """
    run_id = int(folder.name)
    config = _json_file(folder / "config.json", problems)
    created = None
    with contextlib.suppress(OSError):
        created = (folder / "config.json").stat().st_mtime
    try:
        new = from_config(config, created)
    except TypeError as error:
        problems.append(f"{folder}: {error}")
        new = NewRun(name=folder.name)
    with write(conn):  # the daemon must not see it before it is known what became of it
        queue.add(conn, dataclasses.replace(new, held=held, after=()), run_id)
        imported = import_journal(conn, run_id, folder, whole_history=True)
        started = conn.execute("SELECT min(time) FROM events WHERE run_id = ? AND kind = 'state'", (run_id,)).fetchone()
        if imported.events:
            conn.execute(
                "UPDATE runs SET started = coalesce(started, ?), held = 0, attempts = max(attempts, 1),"
                f" state = CASE WHEN state IN ('queued', {', '.join(repr(state.value) for state in ACTIVE)})"
                " THEN 'interrupted' ELSE state END WHERE id = ?",
                (started[0], run_id),
            )
            conn.execute(
                "UPDATE runs SET finished = beat, phase = NULL,"
                " reason = coalesce(reason, 'its worker left without a word') WHERE id = ? AND state = 'interrupted'",
                (run_id,),
            )
        if worker_alive(folder):
            _adopt(conn, run_id)
        _follow_disk(conn, run_id, folder)
    if imported.damaged:
        problems.append(
            msg(
                "{folder}: {damaged:,} lines could not be read",
                folder=folder / "journal.jsonl",
                damaged=imported.damaged,
            )
        )
    return tuple(after for after in new.after if isinstance(after, int)), imported.points


def _adopt(conn: sqlite3.Connection, run_id: int) -> None:
    """Its worker is there: the daemon goes on from here as with one that it started."""
    row = conn.execute(
        "SELECT json_extract(detail, '$.pid') FROM events WHERE run_id = ? AND kind = 'state' AND message = 'starting'"
        " ORDER BY id DESC LIMIT 1",
        (run_id,),
    ).fetchone()
    pid = row[0] if row and isinstance(row[0], int) else None
    run_lifecycle.begin(conn, run_id, pid, started_at(pid) if pid else None, platform.node())
    conn.execute("UPDATE runs SET attempts = 1 WHERE id = ?", (run_id,))
    last = conn.execute(
        "SELECT message FROM events WHERE run_id = ? AND kind = 'state' ORDER BY id DESC LIMIT 1", (run_id,)
    ).fetchone()
    runs = last == (RunState.RUNNING.value,)
    conn.execute("UPDATE runs SET state = 'running' WHERE id = ? AND (step > 0 OR ?)", (run_id, runs))


def _follow_disk(conn: sqlite3.Connection, run_id: int, folder: Path) -> None:
    """Checkpoints whose folder was deleted are removed, those with a marker are pinned; no journal says either."""
    for step, path in conn.execute(
        "SELECT step, path FROM checkpoints WHERE run_id = ? AND removed IS NULL", (run_id,)
    ).fetchall():
        if path and (folder / path / PINNED).exists():
            conn.execute("UPDATE checkpoints SET pinned = 1 WHERE run_id = ? AND step = ?", (run_id, step))
        elif path and (folder / "checkpoints").is_dir() and not (folder / path).exists():
            checkpoint_rows.checkpoint_removed(conn, run_id, step)


def _json_file(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        problems.append(msg("{path}: not a JSON object", path=path))
    except FileNotFoundError:
        problems.append(f"{path}: missing")
    except (OSError, ValueError) as error:
        problems.append(f"{path}: {error}")
    return {}


class OldDatabase:
    """What the old database knew and no folder does; empty where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.runs: dict[int, dict[str, Any]] = {}
        self.after: dict[int, set[int]] = {}
        self._ends: list[tuple] = []
        self._pins: list[tuple[int, int]] = []
        self._meta: list[tuple[str, str]] = []
        self._events: list[tuple] = []
        if not path.exists():
            return
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path, timeout=5)) as conn:
            for row in conn.execute(f"SELECT id, {', '.join(_TAKEN_OVER)} FROM runs"):
                self.runs[row[0]] = dict(zip(_TAKEN_OVER, row[1:], strict=True))
            tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            renamed = "meta" in tables  # by the third migration, which may not have been made
            self._meta = conn.execute(f"SELECT name, value FROM {'meta' if renamed else 'facts'}").fetchall()
            self._ends = conn.execute(
                f"SELECT state, reason, {'reason_template' if renamed else 'NULL'}, finished, exit_code, error, id"
                " FROM runs WHERE state IN ('stopped', 'failed')"
            ).fetchall()
            self._pins = conn.execute("SELECT run_id, step FROM checkpoints WHERE pinned").fetchall()
            for run_id, dependency in conn.execute("SELECT run_id, after_id FROM dependencies"):
                self.after.setdefault(run_id, set()).add(dependency)
            self._events = conn.execute(
                f"SELECT run_id, time, source, kind, step, message, detail, {'templates' if renamed else 'NULL'}"
                " FROM events WHERE source = 'queue'"
            ).fetchall()

    def restore(self, conn: sqlite3.Connection) -> None:
        """Put it into the new database, for the runs that are there."""
        columns = ", ".join(f"{name} = coalesce(?, {name})" for name in _TAKEN_OVER)
        with write(conn):
            stored_ids = {row[0] for row in conn.execute("SELECT id FROM runs")}
            for run_id, values in self.runs.items():
                values = values | {"held": None}  # decided when the run was taken in
                conn.execute(f"UPDATE runs SET {columns} WHERE id = ?", (*values.values(), run_id))
            # What was taken off the queue or killed left no word in its journal, and is not to start again by surprise.
            conn.executemany(
                "UPDATE runs SET state = ?, reason = ?, reason_template = ?, finished = ?, exit_code = ?, error = ?"
                " WHERE id = ? AND state IN ('queued', 'interrupted')",
                self._ends,
            )
            conn.executemany("UPDATE checkpoints SET pinned = 1 WHERE run_id = ? AND step = ?", self._pins)
            conn.executemany(
                "INSERT OR IGNORE INTO dependencies VALUES (?, ?)",
                [
                    (run_id, dependency)
                    for run_id in stored_ids & self.after.keys()
                    for dependency in self.after[run_id]
                ],
            )
            conn.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", self._meta)
            conn.execute(  # the largest id may be that of a run whose folder was deleted
                "UPDATE meta SET value = max(CAST(value AS INTEGER), CAST(? AS INTEGER)) WHERE name = ?",
                (dict(self._meta).get(queue.LAST_ID, 0), queue.LAST_ID),
            )
            conn.executemany(
                "INSERT INTO events(run_id, time, source, kind, step, message, detail, templates)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [event for event in self._events if event[0] in stored_ids],
            )
