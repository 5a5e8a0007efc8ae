"""Opening runs.db.

Writers work in explicit `BEGIN IMMEDIATE` transactions (`write`): a plain BEGIN that starts with a read and then
writes fails at once when another process wrote in between, however long the timeout. Readers open `mode=ro`; in WAL
mode they see one consistent snapshot per transaction and never hold up the writer.

Plain `sqlite3` is used here and in every module but `schema`: importing sqlite_utils costs 0.06 s, which neither
`finetop ls` nor the screen needs to pay.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from sqlite3 import Connection
from sqlite3 import Error as DatabaseError
from typing import Any
from urllib.parse import quote

from engine.base.messages import msg
from engine.store.store_errors import (
    StoreError,
    StoreForeign,
    StoreMissing,
    StoreNewer,
    StoreOlder,
    from_sqlite,
    is_busy,
)
from engine.store.transactions import APPLICATION_ID, BUSY_SECONDS

SCHEMA_VERSION = 3
"""The number of migrations in `schema`; kept here so that opening an up-to-date database imports nothing heavy."""
NOTICE_SECONDS = 1.0
"""A wait of this length is felt. Writers of our own hold the lock for a tenth of it."""


class BusyAwareConnection(sqlite3.Connection):
    """A connection that tells once when it has to wait for another process, and only then waits as long as it may.

    SQLite has a hook for that, which Python's module does not hand out.
    """

    on_wait: Callable[[float], None] | None = None
    busy_seconds = BUSY_SECONDS

    def execute(self, *words: Any) -> sqlite3.Cursor:
        began = time.monotonic()
        try:
            return super().execute(*words)
        except sqlite3.OperationalError as error:
            waited = time.monotonic() - began >= NOTICE_SECONDS / 2  # some locks SQLite does not wait for
            if self.on_wait is None or not waited or not is_busy(error):
                raise
        tell, self.on_wait = self.on_wait, None
        super().execute(f"PRAGMA busy_timeout={1000 * self.busy_seconds:.0f}")
        tell(self.busy_seconds)
        return super().execute(*words)


def writer(
    path: Path, busy_seconds: float = BUSY_SECONDS, on_wait: Callable[[float], None] | None = None
) -> sqlite3.Connection:
    """The connection for writing, made and migrated if need be. One per process; give it to no other thread.

    `on_wait` is called once, when another process has held the lock for `NOTICE_SECONDS`, with how long it is waited
    for from then on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_folder(path)
    try:
        if on_wait is None:
            conn = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
        else:
            conn = sqlite3.connect(
                path, timeout=min(NOTICE_SECONDS, busy_seconds), isolation_level=None, factory=BusyAwareConnection
            )
            conn.on_wait, conn.busy_seconds = on_wait, busy_seconds
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error
    try:
        if _version(conn, path) != SCHEMA_VERSION:
            from engine.store import schema  # 0.06 s: imports sqlite_utils

            schema.migrate(conn, path, busy_seconds=busy_seconds)
        # NORMAL: a commit is safe against any process dying; only a power cut may lose the last ones, and the
        # journals still have them.
        conn.execute("PRAGMA synchronous=NORMAL")
        conn.execute("PRAGMA foreign_keys=ON")
        conn.execute("PRAGMA cache_size=-16000")
    except BaseException as error:
        conn.close()
        if isinstance(error, sqlite3.Error):
            raise from_sqlite(error, path) from error
        raise
    return conn


def reader(path: Path, busy_seconds: float = 2.0) -> sqlite3.Connection:
    """A connection that can only read. Raises StoreMissing, StoreNewer, StoreOlder or StoreForeign."""
    if not path.exists():
        raise StoreMissing(
            msg("there is no {path_name} in {parent} yet", path_name=path.name, parent=path.parent),
            "`finetop add` makes one.",
        )
    _refuse_folder(path)
    uri = f"file:{quote(os.fsencode(path.resolve()))}?mode=ro"
    try:
        conn = sqlite3.connect(uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error
    try:
        version = _version(conn, path)
        if not version:
            raise StoreOlder(
                msg("{path} is an empty database", path=path),
                "The next command that writes fills it from the run folders; `finetop rebuild` does it now.",
            )
        if version < SCHEMA_VERSION:
            raise StoreOlder(
                msg("{path} has not been migrated yet", path=path), "Any command that writes does it, after a backup."
            )
        conn.execute("PRAGMA query_only=ON")
        # Memory-mapped reads leave the list of 5,000 runs in the page cache without copying it; 20 million points fit.
        conn.execute("PRAGMA mmap_size=1073741824")
    except BaseException as error:
        conn.close()
        if isinstance(error, sqlite3.Error):
            raise from_sqlite(error, path) from error
        raise
    return conn


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise StoreForeign(
            msg("{path} is a folder, where finetop keeps its database", path=path),
            "Rename that folder, or choose another workspace with --workspace DIR.",
        )


def _version(conn: sqlite3.Connection, path: Path) -> int:
    """The schema's version, 0 for an empty database. Raises if the file is not ours or newer than we are."""
    with snapshot(conn):  # one state: another process may be making the tables just now
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        application = conn.execute("PRAGMA application_id").fetchone()[0]
        has_tables = conn.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None
    if application not in (0, APPLICATION_ID):
        raise StoreForeign(
            msg("{path} belongs to another program", path=path), "Give finetop a folder of its own: --workspace DIR."
        )
    if application == 0 and has_tables:
        raise StoreForeign(
            msg("{path} is a database that finetop did not make", path=path),
            "Give finetop a folder of its own: --workspace DIR.",
        )
    if version > SCHEMA_VERSION:
        raise StoreNewer(
            msg(
                "{path} was written by a newer finetop (schema {version}; this one knows {schema_version})",
                path=path,
                version=version,
                schema_version=SCHEMA_VERSION,
            ),
            "Use the newer version: this one leaves the file as it is.",
        )
    return version


@contextlib.contextmanager
def snapshot(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Several reads of one and the same state."""
    if conn.in_transaction:
        yield conn
        return
    conn.execute("BEGIN")
    try:
        yield conn
    finally:
        if conn.in_transaction:
            conn.execute("COMMIT")


class Changes:
    """Says whether another connection has committed since the last question; about 6 µs a question."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._seen = -1

    def changed(self) -> bool:
        """True the first time, and whenever another connection wrote."""
        version = self._conn.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen:
            return False
        self._seen = version
        return True


__all__ = [
    "SCHEMA_VERSION",
    "Changes",
    "Connection",
    "DatabaseError",
    "StoreError",
    "reader",
    "snapshot",
    "writer",
]
