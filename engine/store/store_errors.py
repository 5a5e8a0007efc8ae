"""What can be wrong with runs.db.

StoreError
 ├─ StoreMissing    there is no runs.db here yet
 ├─ StoreForeign    a runs.db that is not ours, or no database at all
 ├─ StoreNewer      written by a newer finetop than this one
 ├─ StoreOlder      not yet migrated (readers only; a writer migrates it)
 ├─ StoreBusy       another process held the write lock for too long
 └─ StoreFull       no room left on the disk
"""

import os
import sqlite3
from pathlib import Path

from engine.base.disk_room import inodes_left
from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.system_errors import system_error
from engine.base.workspace import Workspace

_WAL_BYTES = 100_000
"""Opening a database makes its index of the log, 32 KiB, and a commit some pages."""


class StoreError(EngineError):
    pass


class StoreMissing(StoreError):
    exit_code = 2


class StoreForeign(StoreError):
    exit_code = 2


class StoreNewer(StoreError):
    pass


class StoreOlder(StoreError):
    pass


class StoreBusy(StoreError):
    pass


class StoreFull(StoreError):
    pass


def from_sqlite(error: sqlite3.Error, path: str | Path = "runs.db") -> StoreError:
    """The same fault in the user's words."""
    code = _code(error)
    if is_busy(error):
        return StoreBusy(msg("{path} is locked by another process", path=path), "Try again when that is done with it.")
    if code == sqlite3.SQLITE_FULL or (code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _is_full(path)):
        return StoreFull(
            msg("no room left on the disk that holds {path}", path=path),
            msg(
                "Empty {trash} or free other space; nothing was lost.",
                trash=Workspace(Path(path).parent).trash,
            ),
        )
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StoreForeign(
            msg("{path} is damaged or no database: {error}", path=path, error=error),
            "Move it away and run `finetop rebuild`: the run folders hold everything but the waiting order.",
        )
    if code == sqlite3.SQLITE_CANTOPEN and (refusal := _refusal(Path(path))):
        return StoreError(refusal.message, refusal.hint)
    return StoreError(f"{path}: {error}", "`finetop doctor` looks at the workspace's file system.")


def _refusal(path: Path) -> EngineError | None:
    """Why the system makes no file there, where SQLite only says that it cannot open one; None where it makes one."""
    trial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        trial.unlink()
    except OSError as error:
        message = msg("no file can be made in {folder}: {reason}", folder=path.parent, reason=error.strerror)
        return EngineError(message, "Choose another folder with --workspace DIR.")
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return system_error(error)
    return None


def _is_full(path: str | Path) -> bool:
    """Whether the disk has no room for the files that SQLite makes beside a database: it says that as an I/O error."""
    try:
        disk = os.statvfs(Path(path).parent)
    except OSError:
        return False
    # /proc and its kind have no blocks at all.
    return bool(disk.f_blocks) and (disk.f_bavail * disk.f_frsize < _WAL_BYTES or not inodes_left(Path(path).parent))


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process holds the lock."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
