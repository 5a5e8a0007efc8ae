"""The tables of runs.db as numbered migrations: appended, never edited, applied under one write lock.

The only module that imports sqlite_utils; `connect.writer` calls it when the database is new or old. Several processes
may arrive at once: each takes the write lock with BEGIN IMMEDIATE and looks again at the version, so one migrates and
the others find it done. sqlite-utils' own transactions then nest inside as savepoints.

`points` is where the bytes are. Its row is (series, step, value), about 20 bytes; run and key are interned together as
the id of their `metric_summary` row. The time of a step is shared by all its metrics, so it is a series of its own,
called `time`: 20 bytes a step instead of 10 a point. The view `metrics` puts it all together again.
"""

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.base.messages import msg
from engine.store.store_errors import StoreError
from engine.store.transactions import APPLICATION_ID, BUSY_SECONDS, use_wal, write


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    """While modules are imported that would take these along, 0.3 s of them, only to know their number types."""
    absent = [name for name in names if name not in sys.modules]
    barred: dict[str, Any] = dict.fromkeys(absent)  # None: importing it raises ImportError
    sys.modules.update(barred)
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


with _without("numpy", "pandas"):
    import sqlite_utils
    from sqlite_utils import Migrations

MIGRATIONS = Migrations("finetop")


def migrate(
    conn: sqlite3.Connection, path: Path, migrations: Migrations = MIGRATIONS, busy_seconds: float = BUSY_SECONDS
) -> Path | None:
    """Bring the database up to date, after a backup if it held anything. Returns the backup's path, if one was made."""
    newest = len(migrations._migrations)
    use_wal(conn, busy_seconds)
    backup = None
    with write(conn):
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        if version >= newest:
            return None  # another process was quicker
        if version > 0:
            backup = _backup(path, version)
        migrations.apply(sqlite_utils.Database(conn))
        conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
        conn.execute(f"PRAGMA user_version={newest}")
    with contextlib.suppress(OSError):
        os.chmod(path, 0o600)
    return backup


def _backup(path: Path, version: int) -> Path:
    """A whole copy beside the database. Taken while we hold the write lock, so nothing can be written in between."""
    target = path.with_name(f"{path.name}.schema-{version}.bak")
    partial = target.with_name(target.name + ".part")
    try:
        partial.unlink(missing_ok=True)
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(partial)) as copy,
        ):
            source.backup(copy)
        os.chmod(partial, 0o600)
        os.replace(partial, target)
    except (sqlite3.Error, OSError) as error:
        partial.unlink(missing_ok=True)
        raise StoreError(
            msg(
                "{path} needs migrating, and no backup could be written to {target}: {error}",
                path=path,
                target=target,
                error=error,
            ),
            "Make room on that disk; the database has not been touched.",
        ) from error
    return target


@MIGRATIONS()
def m001_first(db: sqlite_utils.Database) -> None:
    db.table("facts").create({"name": str, "value": str}, pk="name")
    texts = ("name", "sweep", "note", "preset", "model", "data", "method", "objective")
    db.table("runs").create(
        {
            "id": int,
            "name": str,
            "state": str,
            "wanted": str,
            "held": int,
            "priority": int,
            "position": int,
            "not_before": float,
            "wait_kind": str,
            "wait_reason": str,
            "sweep": str,
            "tags": str,
            "note": str,
            "preset": str,
            "model": str,
            "data": str,
            "method": str,
            "objective": str,
            "parent_run": int,
            "parent_step": int,
            "resume_step": int,
            "gpus_wanted": int,
            "gpus_pinned": str,
            "gpus": str,
            "share": int,
            "estimate_bytes": int,
            "estimate_seconds": float,
            "retries": int,
            "attempts": int,
            "pid": int,
            "pid_started": float,
            "host": str,
            "created": float,
            "queued": float,
            "started": float,
            "finished": float,
            "busy_seconds": float,
            "beat": float,
            "beat_due": float,
            "step": int,
            "total_steps": int,
            "epoch": float,
            "train_loss": float,
            "eval_loss": float,
            "best_eval": float,
            "best_eval_step": int,
            "step_seconds": float,
            "tokens_per_second": float,
            "reason": str,
            "error": str,
            "exit_code": int,
            "trashed": float,
            "journal_offset": int,
            "journal_head": int,
        },
        pk="id",
        not_null={
            "state",
            "held",
            "priority",
            "position",
            "share",
            "created",
            "journal_offset",
            "journal_head",
            *texts,
        },
        defaults={
            **dict.fromkeys(texts, ""),
            "share": 0,
            "gpus_wanted": 1,
            "retries": 0,
            "state": "queued",
            "held": 0,
            "priority": 0,
            "position": 0,
            "attempts": 0,
            "busy_seconds": 0,
            "step": 0,
            "journal_offset": 0,
            "journal_head": 0,
        },
    )
    db.execute("CREATE INDEX runs_waiting ON runs(priority DESC, position) WHERE state = 'queued'")
    db.table("runs").create_index(["state"])
    db.execute(
        "CREATE TABLE settings(run_id INTEGER, key TEXT, value TEXT, origin TEXT, PRIMARY KEY(run_id, key))"
        " WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE dependencies(run_id INTEGER, after_id INTEGER, PRIMARY KEY(run_id, after_id)) WITHOUT ROWID"
    )
    db.table("events").create(
        {
            "id": int,
            "run_id": int,
            "time": float,
            "source": str,  # 'journal', or 'queue' for what the daemon and the commands did
            "kind": str,
            "step": int,
            "message": str,
            "detail": str,
        },
        pk="id",
    )
    db.table("events").create_index(["run_id"])
    db.execute(
        "CREATE TABLE checkpoints(run_id INTEGER, step INTEGER, epoch REAL, path TEXT, bytes INTEGER, kept TEXT,"
        " eval TEXT, parent_run INTEGER, parent_step INTEGER, time REAL, pinned INTEGER NOT NULL DEFAULT 0,"
        " removed REAL, detail TEXT, PRIMARY KEY(run_id, step)) WITHOUT ROWID"
    )
    db.table("evaluations").create(
        {"id": int, "run_id": int, "step": int, "time": float, "scores": str, "detail": str}, pk="id"
    )
    db.table("evaluations").create_index(["run_id", "step"])
    db.table("samples").create({"id": int, "run_id": int, "step": int, "time": float, "detail": str}, pk="id")
    db.table("samples").create_index(["run_id", "step"])

    db.table("metric_keys").create({"id": int, "key": str}, pk="id")
    db.table("metric_keys").create_index(["key"], unique=True)
    db.table("metric_summary").create(
        {
            "id": int,
            "run_id": int,
            "key_id": int,
            "count": int,
            "nonfinite": int,
            "first_step": int,
            "first": float,
            "last_step": int,
            "last": float,
            "low_step": int,
            "low": float,
            "high_step": int,
            "high": float,
        },
        pk="id",
    )
    db.table("metric_summary").create_index(["run_id", "key_id"], unique=True)
    # NaN is NULL; the infinities are themselves.
    db.execute("CREATE TABLE points(series INTEGER, step INTEGER, value REAL, PRIMARY KEY(series, step)) WITHOUT ROWID")
    db.execute(
        "CREATE TABLE metric_pyramid(series INTEGER, level INTEGER, bucket INTEGER, low REAL, high REAL, total REAL,"
        " count INTEGER, nonfinite INTEGER, PRIMARY KEY(series, level, bucket)) WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE gpu_samples(gpu TEXT, time REAL, run_id INTEGER, utilisation REAL, memory_bytes INTEGER,"
        " power_watts REAL, temperature REAL, PRIMARY KEY(gpu, time)) WITHOUT ROWID"
    )
    db.table("gpu_samples").create_index(["run_id"])

    db.create_view(
        "metrics",
        """
        SELECT s.run_id AS run, k.key AS key, p.step AS step, p.value AS value, t.value AS time
        FROM metric_summary s JOIN metric_keys k ON k.id = s.key_id JOIN points p ON p.series = s.id
        LEFT JOIN metric_summary ts ON ts.run_id = s.run_id
                                   AND ts.key_id = (SELECT id FROM metric_keys WHERE key = 'time')
        LEFT JOIN points t ON t.series = ts.id AND t.step = p.step
        WHERE k.key <> 'time'
        """,
    )
    db.create_view(
        "run_metrics",
        """
        SELECT s.run_id AS run, k.key AS key, s.count, s.nonfinite, s.first, s.first_step, s.last, s.last_step,
               s.low AS min, s.low_step AS min_step, s.high AS max, s.high_step AS max_step
        FROM metric_summary s JOIN metric_keys k ON k.id = s.key_id
        WHERE s.count > 0 AND k.key <> 'time'
        """,
    )
    db.create_view(
        "run_summary",
        """
        SELECT id, name, CASE WHEN state = 'queued' AND held THEN 'held' ELSE state END AS state, step, total_steps,
               round(train_loss, 4) AS train_loss, round(eval_loss, 4) AS eval_loss, round(best_eval, 4) AS best_eval,
               best_eval_step, model, data, preset, method, objective, sweep,
               datetime(created, 'unixepoch') AS created_utc, datetime(started, 'unixepoch') AS started_utc,
               datetime(finished, 'unixepoch') AS finished_utc, round(finished - started, 1) AS seconds,
               gpus, round(estimate_bytes / 1073741824.0, 1) AS estimate_gib, coalesce(reason, wait_reason) AS reason,
               parent_run, parent_step, tags, note
        FROM runs WHERE trashed IS NULL ORDER BY id DESC
        """,
    )
    db.create_view(
        "queue",
        """
        SELECT row_number() OVER (ORDER BY priority DESC, position, id) AS place, id, name, priority,
               CASE WHEN held THEN 'held' ELSE 'waiting' END AS state, wait_reason,
               datetime(queued, 'unixepoch') AS queued_utc
        FROM runs WHERE state = 'queued' AND trashed IS NULL
        """,
    )


@MIGRATIONS()
def m002_best_since_the_start(db: sqlite_utils.Database) -> None:
    """What a run was before its first step is the base model's value, and no longer its own best."""
    db.table("runs").add_column("start_eval", float)
    db.execute("ALTER TABLE runs ADD COLUMN best_by TEXT NOT NULL DEFAULT 'loss:min'")
    losses = (
        "SELECT p.step AS step, p.value AS value FROM points p JOIN metric_summary s ON s.id = p.series"
        " JOIN metric_keys k ON k.id = s.key_id AND k.key = 'eval/loss' WHERE s.run_id = runs.id"
    )
    db.execute(f"UPDATE runs SET start_eval = (SELECT value FROM ({losses}) WHERE step = 0)")
    since = f"FROM ({losses}) WHERE step > 0 AND abs(value) <= 1.7976931348623157e308 ORDER BY value, step LIMIT 1"
    db.execute(
        f"UPDATE runs SET best_eval = (SELECT value {since}), best_eval_step = (SELECT step {since})"
        " WHERE best_eval_step = 0"
    )
    db["run_summary"].drop()
    db.create_view(
        "run_summary",
        """
        SELECT id, name, CASE WHEN state = 'queued' AND held THEN 'held' ELSE state END AS state, step, total_steps,
               round(train_loss, 4) AS train_loss, round(eval_loss, 4) AS eval_loss, round(best_eval, 4) AS best_eval,
               best_eval_step, best_by, round(start_eval, 4) AS start_eval, model, data, preset, method, objective,
               sweep, datetime(created, 'unixepoch') AS created_utc, datetime(started, 'unixepoch') AS started_utc,
               datetime(finished, 'unixepoch') AS finished_utc, round(finished - started, 1) AS seconds,
               gpus, round(estimate_bytes / 1073741824.0, 1) AS estimate_gib, coalesce(reason, wait_reason) AS reason,
               parent_run, parent_step, tags, note
        FROM runs WHERE trashed IS NULL ORDER BY id DESC
        """,
    )


@MIGRATIONS()
def m003_phase_meta_and_templates(db: sqlite_utils.Database) -> None:
    """What a worker does has a column of its own, answers to validation examples a kind of their own, and sentences
    keep template and values. `saving` was a state that nothing ever set."""
    db.execute("ALTER TABLE facts RENAME TO meta")
    for column in ("phase", "reason_template", "wait_template"):
        db.execute(f"ALTER TABLE runs ADD COLUMN {column} TEXT")
    db.execute("UPDATE runs SET state = 'running' WHERE state = 'saving'")
    db.execute("UPDATE runs SET phase = wait_reason, wait_reason = NULL WHERE state IN ('starting', 'running')")
    db.execute("ALTER TABLE events ADD COLUMN templates TEXT")  # JSON: the field's name to its template and values
    db.execute("ALTER TABLE samples ADD COLUMN kind TEXT NOT NULL DEFAULT 'sample'")
    db.execute("UPDATE samples SET kind = 'answer' WHERE json_type(detail, '$.reference') IS NOT NULL")
    db["run_summary"].drop()
    db.create_view(
        "run_summary",
        """
        SELECT id, name, CASE WHEN state = 'queued' AND held THEN 'held' ELSE state END AS state, phase, step,
               total_steps, round(train_loss, 4) AS train_loss, round(eval_loss, 4) AS eval_loss,
               round(best_eval, 4) AS best_eval, best_eval_step, best_by, round(start_eval, 4) AS start_eval, model,
               data, preset, method, objective, sweep, datetime(created, 'unixepoch') AS created_utc,
               datetime(started, 'unixepoch') AS started_utc, datetime(finished, 'unixepoch') AS finished_utc,
               round(finished - started, 1) AS seconds, gpus, round(estimate_bytes / 1073741824.0, 1) AS estimate_gib,
               coalesce(reason, wait_reason) AS reason, parent_run, parent_step, tags, note
        FROM runs WHERE trashed IS NULL ORDER BY id DESC
        """,
    )
