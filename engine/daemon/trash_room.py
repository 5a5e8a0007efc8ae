"""Room on a full disk, from the trash: what has lain there longest is deleted first, and the run that needed it says
so."""

import logging
from collections.abc import Iterable
from pathlib import Path

from engine.base.disk_room import lack_of_room
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.daemon.scheduler_state import WaitKind
from engine.store import queries, queue, trash
from engine.store.connect import Connection
from engine.store.run_records import Run

_NO_ROOM_BYTES = 1_000_000
"""Below this a worker may not even have been able to write that its disk is full."""

log = logging.getLogger("daemon")


def make_room(conn: Connection, workspace: Workspace, active: Iterable[Run]) -> bool:
    """Where a run at work lacks room on its disk, or one cannot start for that, delete one thing from the trash.
    Whether it did."""
    if not workspace.trash.is_dir():
        return False
    needy = [(run, folder) for run in active if _lacks_room(conn, run, folder := workspace.runs / str(run.id))]
    needy += [(run, workspace.root) for run in queries.queue(conn) if run.wait_kind == WaitKind.DISK]
    for run, folder in needy:
        if (oldest := trash.empty_oldest(conn, workspace, folder)) is not None:
            deleted = f"{oldest.label} ({oldest.name})" if oldest.name else oldest.label
            message = msg("{deleted} was deleted from the trash for good: the disk is full", deleted=deleted)
            log.warning("%s", message)
            queue.note(conn, run.id, "trash-emptied", message)
            return True
    return False


def _lacks_room(conn: Connection, run: Run, folder: Path) -> bool:
    try:
        return queries.lacks_room(conn, run) or lack_of_room(folder, _NO_ROOM_BYTES) is not None
    except OSError:
        return False
