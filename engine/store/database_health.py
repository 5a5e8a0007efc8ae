"""How a database is, for `finetop doctor`: asked without changing anything."""

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from engine.store import queries
from engine.store.connect import reader
from engine.store.run_records import RunState
from engine.store.store_errors import StoreError
from engine.store.transactions import journal_mode

SQLITE_VERSION = sqlite3.sqlite_version
SQLITE_NEEDED = (3, 38, 0)
"""RETURNING came with 3.35, json_extract built in with 3.38."""


@dataclass(frozen=True, slots=True)
class Health:
    exists: bool
    bytes: int = 0
    """With what has not been written back from the log beside it yet."""
    journal_mode: str = ""
    runs: int = 0
    trashed: int = 0
    interrupted: int = 0
    problem: str = ""
    hint: str = ""


def sqlite_is_new_enough() -> bool:
    return sqlite3.sqlite_version_info >= SQLITE_NEEDED


def health(path: Path) -> Health:
    """Opens the database as any reader does; what is wrong with it is in `problem`."""
    if not path.exists():
        return Health(False)
    size = 0
    for name in (path, f"{path}-wal"):
        with contextlib.suppress(OSError):
            size += os.path.getsize(name)
    try:
        with contextlib.closing(reader(path)) as conn:
            counts = queries.counts(conn)
            trashed = len(queries.list_runs(conn, trashed=True))
            return Health(True, size, journal_mode(conn), sum(counts.values()), trashed, counts[RunState.INTERRUPTED])
    except StoreError as error:
        return Health(True, size, problem=error.message, hint=error.hint)
    except sqlite3.Error as error:
        return Health(True, size, problem=f"{path}: {error}", hint="Move it away and run `finetop rebuild`.")
