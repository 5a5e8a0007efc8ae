"""Which processes are those of runs, for who measures the machine without a daemon."""

import contextlib

from engine.base.errors import EngineError
from engine.base.workspace import Workspace
from engine.store import queries
from engine.store.connect import DatabaseError, reader


def live_runs(workspace: Workspace) -> dict[int | str, tuple[int, float | None]]:
    """Id to (worker pid, its start time), by the store. Without one, or with one that cannot be read, none is known."""
    with contextlib.suppress(EngineError, DatabaseError), contextlib.closing(reader(workspace.database)) as conn:
        return {run.id: (run.pid, run.pid_started) for run in queries.active(conn) if run.pid is not None}
    return {}
