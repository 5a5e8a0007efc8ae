"""Runs that are in the workspace and not in the store: `finetop train` made them, or they were copied there.

A run with a worker of its own is never waiting: it comes in as running with that worker's pid, or as its journal says
it ended. So no daemon starts it a second time. A folder without a journal is none of our business yet: either its
worker has only just been started, or whoever was about to queue it was killed.
"""

import platform
import sqlite3
from pathlib import Path

from engine.base.messages import msg
from engine.base.oom_kills import oom_reason
from engine.base.worker_process import started_at
from engine.base.workspace import Workspace
from engine.runs.journal import NAME
from engine.store import queue, run_lifecycle
from engine.store.journal_import import import_journal
from engine.store.rebuild import take_in
from engine.store.run_records import ACTIVE, RunState
from engine.store.store_errors import StoreError
from engine.store.transactions import write


def unknown_runs(conn: sqlite3.Connection, workspace: Workspace) -> list[int]:
    """The ids of run folders with a journal that the store does not know; one look at one folder."""
    stored_ids = {row[0] for row in conn.execute("SELECT id FROM runs")}
    return [
        run_id
        for run_id in workspace.run_ids()
        if run_id not in stored_ids and _has_begun(workspace.runs / str(run_id) / NAME)
    ]


def _has_begun(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def import_unknown(conn: sqlite3.Connection, workspace: Workspace) -> list[int]:
    """Put them into the store; their ids."""
    taken = []
    for run_id in unknown_runs(conn, workspace):
        try:
            take_in(conn, workspace.runs / str(run_id), [])
            taken.append(run_id)
        except StoreError:
            if not conn.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone():
                raise  # otherwise another process was quicker
    return taken


def began(conn: sqlite3.Connection, folder: Path, pid: int) -> bool:
    """Tell of a worker started by hand, on a new run or an old one. False: the store has other plans for it."""
    run_id = int(folder.name)
    with write(conn):
        row = conn.execute("SELECT state FROM runs WHERE id = ?", (run_id,)).fetchone()
        if row is None:
            take_in(conn, folder, [])
        elif row[0] in ("queued", *ACTIVE):
            return False
        return bool(run_lifecycle.begin(conn, run_id, pid, started_at(pid), platform.node()))


def ended(conn: sqlite3.Connection, folder: Path, exit_code: int, out_of_memory: str = "") -> None:
    """Tell that such a worker is gone: what its journal said stands, else that it vanished. `out_of_memory`: what had
    run out when the kernel's OOM killer took it."""
    run_id = int(folder.name)
    import_journal(conn, run_id, folder)
    reason = msg("its worker was killed by signal {exit_code}", exit_code=-exit_code) if exit_code < 0 else None
    if out_of_memory:
        reason = oom_reason(out_of_memory)
    if not run_lifecycle.finish(conn, run_id, RunState.FAILED, reason, exit_code=exit_code):
        run_lifecycle.explain(conn, run_id, exit_code=exit_code)
    elif out_of_memory:
        words = msg("{cause}: {reason}", cause="oom-killer", reason=reason)
        queue.note(conn, run_id, "ended", words, detail={"cause": "oom-killer"})
