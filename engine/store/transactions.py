"""Write transactions, the journal mode, and the marks of our databases."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator

from engine.store.store_errors import from_sqlite, is_busy

APPLICATION_ID = 0x46744F70
"""'FtOp' in the file's header: a runs.db without it was not made by us."""


BUSY_SECONDS = 30.0
"""How long a writer waits for another: a backup or a stuck disk may hold the lock for 10 s and more."""


@contextlib.contextmanager
def write(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One write transaction: all of it or nothing. Inside another `write` it is a part of that one."""
    if conn.in_transaction:
        yield conn
        return
    try:
        conn.execute("BEGIN IMMEDIATE")
        try:
            yield conn
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
    except sqlite3.DatabaseError as error:
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
            raise  # ours, not the database's
        raise from_sqlite(error) from error


def journal_mode(conn: sqlite3.Connection) -> str:
    """'wal', or what the file system allowed instead (network drives lack the shared memory that WAL needs)."""
    return conn.execute("PRAGMA journal_mode").fetchone()[0]


def use_wal(conn: sqlite3.Connection, limit_seconds: float = BUSY_SECONDS) -> str:
    """Switch to WAL, which several new processes may attempt at once: SQLite does not wait for that lock by itself."""
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            return conn.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
