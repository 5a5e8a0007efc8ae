"""`.finetop/serve.db`: what the server keeps beside the runs. Several processes may have it open; each part of it is
read and written by a class of its own, over a connection of its own.
"""

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.base.workspace import Workspace
from engine.store.transactions import use_wal, write

_SCHEMA = (
    """
    CREATE TABLE files(id TEXT PRIMARY KEY, created INTEGER, bytes INTEGER, filename TEXT, purpose TEXT, sha256 TEXT,
                       expires INTEGER);
    CREATE TABLE jobs(run_id INTEGER PRIMARY KEY, created INTEGER, status TEXT, record TEXT);
    CREATE TABLE requests(digest TEXT PRIMARY KEY, created REAL, run_id INTEGER);
    CREATE TABLE job_events(id INTEGER PRIMARY KEY, run_id INTEGER, created INTEGER, level TEXT, message TEXT);
    CREATE INDEX job_events_by_run ON job_events(run_id);
    """,
    """
    CREATE TABLE completions(id TEXT PRIMARY KEY, created INTEGER, model TEXT, metadata TEXT, completion TEXT,
                             messages TEXT);
    CREATE INDEX completions_by_time ON completions(created);
    """,
    """
    CREATE TABLE keys(digest TEXT PRIMARY KEY, name TEXT, scopes TEXT, created REAL, revoked REAL);
    CREATE UNIQUE INDEX keys_in_force ON keys(name) WHERE revoked IS NULL;
    CREATE TABLE usage(key TEXT, day TEXT, priced_as TEXT, requests INTEGER, input_tokens INTEGER,
                       output_tokens INTEGER, PRIMARY KEY(key, day, priced_as)) WITHOUT ROWID;
    """,
    """
    CREATE TABLE deliveries(id TEXT, channel TEXT, created REAL, subject TEXT, body TEXT, tries INTEGER, due REAL,
                            state TEXT, error TEXT, PRIMARY KEY(id, channel));
    CREATE TABLE delivered_since(channel TEXT PRIMARY KEY, since REAL);
    """,
)
"""Migrations: appended, never edited."""


def database_file(workspace: Workspace) -> Path:
    return workspace.private / "serve.db"


class ServeDatabase:
    """One connection. Its methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        use_wal(self._conn)
        self._conn.execute("PRAGMA secure_delete=ON")  # a prompt that is deleted is not left on the disk
        path.chmod(0o600)
        with write(self._conn):
            version = self._conn.execute("PRAGMA user_version").fetchone()[0]
            for number, script in enumerate(_SCHEMA[version:], version + 1):
                for statement in filter(str.strip, script.split(";")):
                    self._conn.execute(statement)
                self._conn.execute(f"PRAGMA user_version={number}")

    def close(self) -> None:
        with self._lock:
            self._conn.close()

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._conn.execute(sql, values).fetchall()

    def _do(self, sql: str, values: Sequence[Any] = ()) -> int:
        with self._lock, write(self._conn):
            return self._conn.execute(sql, values).rowcount

    def _do_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._lock, write(self._conn):
            self._conn.executemany(sql, rows)
