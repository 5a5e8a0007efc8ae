"""The trash: what was deleted, runs and single checkpoints, until somebody takes it back or it is purged.

`.finetop/trash/41` is a run's folder, `.finetop/trash/41@600/` holds a checkpoint's folder and the names that pointed
at it. A run's row says that it lies there; killed between row and folder, `restore` and `purge` finish either way.
"""

import os
import re
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import CheckpointError
from engine.base.messages import msg
from engine.base.worker_process import worker_alive
from engine.base.workspace import CHECKPOINTS, Workspace
from engine.runs import checkpoints
from engine.store import checkpoint_rows, queries, queue
from engine.store.run_records import Outcome

_CHECKPOINT = re.compile(r"([1-9]\d{0,17})@(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Trashed:
    """A run or a checkpoint in the trash."""

    run_id: int
    step: int | None
    """None: the whole run."""
    name: str
    """The run's."""
    deleted: float
    """When: UTC epoch seconds."""
    path: Path

    @property
    def label(self) -> str:
        """`41`, or `41@600`: what `finetop restore` takes."""
        return str(self.run_id) if self.step is None else f"{self.run_id}@{self.step}"


def place(workspace: Workspace, run_id: int, step: int | None = None) -> Path:
    """Where a run or a checkpoint lies while it is in the trash."""
    return workspace.trash / (str(run_id) if step is None else f"{run_id}@{step}")


def contents(conn: sqlite3.Connection, workspace: Workspace) -> tuple[Trashed, ...]:
    """All of it, the oldest deletion first."""
    trashed = [
        Trashed(run.id, None, run.name, run.trashed or 0.0, place(workspace, run.id))
        for run in queries.list_runs(conn, trashed=True)
    ]
    for path in workspace.trash.iterdir() if workspace.trash.is_dir() else ():
        match = _CHECKPOINT.fullmatch(path.name)
        if match and checkpoints.steps(path):
            run_id, step = int(match[1]), int(match[2])
            run = queries.run(conn, run_id)
            # A folder's time is that of the last rename into it.
            trashed.append(Trashed(run_id, step, run.name if run else "", path.stat().st_mtime, path))
    return tuple(sorted(trashed, key=lambda entry: entry.deleted))


def put(conn: sqlite3.Connection, workspace: Workspace, run_id: int) -> Outcome:
    """Move a run that is not active there."""
    run = queries.run(conn, run_id)
    outcome = queue.trash(conn, run_id)  # first, so that no daemon starts it while its folder moves
    if outcome:
        try:
            workspace.trash.mkdir(mode=0o700, exist_ok=True)
            _move(workspace.runs / str(run_id), place(workspace, run_id))
        except OSError as error:
            queue.restore(conn, run_id, held=run.held if run else True)
            why = msg(
                "the folder of run {run_id} cannot be moved: {why}", run_id=run_id, why=error.strerror or str(error)
            )
            return Outcome(False, run_id, outcome.state, why)
    return outcome


def restore(conn: sqlite3.Connection, workspace: Workspace, run_id: int) -> Outcome:
    """Take a run back out; one that was waiting comes back held."""
    run = queries.run(conn, run_id)
    if run is not None and run.trashed is None:
        return Outcome(False, run_id, run.state, msg("run {run_id} is not in the trash", run_id=run_id))
    if run is not None:
        try:
            _move(place(workspace, run_id), workspace.runs / str(run_id))
        except OSError as error:
            why = msg(
                "the folder of run {run_id} cannot be moved back: {strerror}", run_id=run_id, strerror=error.strerror
            )
            return Outcome(False, run_id, run.state, why)
    return queue.restore(conn, run_id)


def restore_checkpoint(conn: sqlite3.Connection, workspace: Workspace, run_id: int, step: int) -> Outcome:
    """Take a checkpoint back out into its run. Not where the run has gone another way since: what it would then go on
    from, and call its newest, would be of a course that was given up."""
    run, entry = queries.run(conn, run_id), place(workspace, run_id, step)
    label = f"{run_id}@{step}"
    if not checkpoints.steps(entry):
        return Outcome(False, run_id, run.state if run else None, msg("{label} is not in the trash", label=label))
    if run is None:
        return Outcome(False, run_id, None, msg("the run of {label} was deleted for good", label=label))
    if run.trashed is not None:
        why = msg("run {run_id} is in the trash itself: finetop restore {run_id} first", run_id=run_id)
        return Outcome(False, run_id, run.state, why)
    row = next((point for point in queries.checkpoints(conn, run_id, removed=True) if point.step == step), None)
    if row is None or row.time > entry.stat().st_mtime:
        why = msg(
            "run {run_id} has gone another way since: {label} is of a course it gave up", run_id=run_id, label=label
        )
        return Outcome(False, run_id, run.state, why)
    folder = workspace.runs / str(run_id)
    try:
        kept = checkpoints.move_back(entry, folder / CHECKPOINTS, step)
        # At its next save a worker deletes what its settings do not keep.
        pinned = run.active or worker_alive(folder)
        if pinned:
            checkpoints.pin(folder / CHECKPOINTS, step, True)
    except CheckpointError as error:
        return Outcome(False, run_id, run.state, error.message)
    checkpoint_rows.checkpoint_restored(conn, run_id, step, kept, pinned)
    message = msg("the checkpoint of step {step} was taken back out of the trash", step=step)
    queue.note(conn, run_id, "checkpoint-restored", message, step)
    return Outcome(True, run_id, run.state)


def purge(conn: sqlite3.Connection, workspace: Workspace, run_id: int, step: int | None = None) -> Outcome:
    """Delete a run, with its checkpoints that lie there, or one checkpoint for good."""
    run = queries.run(conn, run_id)
    doomed = [place(workspace, run_id, step)]
    if step is None:
        if run is None or run.trashed is None:
            return queue.purge(conn, run_id)  # which says why not
        # A deletion that was cut short between row and folder left it in its old place.
        doomed.append(workspace.runs / str(run_id))
        doomed += [
            entry.path for entry in contents(conn, workspace) if entry.run_id == run_id and entry.step is not None
        ]
    elif not checkpoints.steps(doomed[0]):
        why = msg("{label} is not in the trash", label=f"{run_id}@{step}")
        return Outcome(False, run_id, run.state if run else None, why)
    try:
        for folder in doomed:
            if folder.exists():
                shutil.rmtree(folder)
    except OSError as error:
        why = msg(
            "{filename} cannot be deleted: {strerror}", filename=error.filename or run_id, strerror=error.strerror
        )
        return Outcome(False, run_id, run.state if run else None, why)
    return queue.purge(conn, run_id) if step is None else Outcome(True, run_id, run.state if run else None)


def empty_oldest(conn: sqlite3.Connection, workspace: Workspace, disk: Path) -> Trashed | None:
    """Delete for good what was put there first, where that gives room on the disk of the folder `disk`; what it was.
    None where there is nothing, or nothing can be deleted."""
    try:
        if workspace.trash.stat().st_dev != disk.stat().st_dev:
            return None
    except OSError:
        return None
    for oldest in contents(conn, workspace):
        if purge(conn, workspace, oldest.run_id, oldest.step):
            return oldest
    return None


def _move(folder: Path, to: Path) -> None:
    """One rename, so that the folder is here or there. Done already, or never there: nothing to do."""
    if folder.exists():
        os.rename(folder, to)
