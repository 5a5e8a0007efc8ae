"""From the names a user gives to what is compared: runs, checkpoints, evaluation folders."""

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import CONFIG, Workspace, parse_checkpoint_name
from engine.compare.comparison_records import LETTERS, Subject
from engine.runs import journal
from engine.runs.evaluation_folder import FOLDER, EvaluationResult, read_result
from engine.store import connect, progress_queries, queries
from engine.store.connect import Connection
from engine.store.run_records import Checkpoint, Run, Series
from engine.store.store_errors import StoreMissing, StoreOlder

_IMPORTED_LATE_SECONDS = 5.0
"""A journal silent for so long and not wholly in the store: nobody imports it. (The daemon takes half a second.)"""
_CHECKPOINT_FOLDER = re.compile(r"step-(\d{8,})|best|latest|epoch-\d+")


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """A run, or one of its checkpoints, and where to read about it."""

    subject: Subject
    conn: Connection
    """A store that has the run."""
    run: Run
    folder: Path
    series: Mapping[str, Series]


@dataclass(frozen=True, slots=True)
class ResolvedEvaluation:
    """An evaluation that was named by its folder."""

    subject: Subject
    evaluation: EvaluationResult


ResolvedSubject = ResolvedRun | ResolvedEvaluation


@contextlib.contextmanager
def opened(
    workspace: Workspace, names: Sequence[str], conn: Connection | None = None
) -> Iterator[tuple[ResolvedSubject, ...]]:
    """What the names stand for. Runs the store lacks, or lags behind, are read from their folders for the while.

    Raises InputError for a name that stands for nothing, CheckpointError never: that a checkpoint's files are gone
    does not matter here.
    """
    if len(names) > len(LETTERS):
        raise InputError(
            msg("{num_names} are too many to compare at once", num_names=len(names)),
            msg("Name {num_letters} at most.", num_letters=len(LETTERS)),
        )
    with contextlib.ExitStack() as stack:
        if conn is None:
            with contextlib.suppress(StoreMissing, StoreOlder):
                conn = stack.enter_context(contextlib.closing(connect.reader(workspace.database)))
        stores: dict[int, Connection] = {}
        resolved: list[ResolvedSubject] = []
        for letter, name in zip(LETTERS, names, strict=False):
            run_id, point = _parse(workspace, name)
            if run_id is None:
                resolved.append(_evaluation(workspace, letter, name))
                continue
            if run_id not in stores:
                stores[run_id] = _store_of(stack, workspace, run_id, conn)
            resolved.append(_run(workspace, letter, name, stores[run_id], run_id, point))
        yield tuple(resolved)


def _parse(workspace: Workspace, name: str) -> tuple[int | None, str]:
    """The run and the point in it, '' for the whole run; None for a folder that is no run's."""
    path = Path(name).expanduser()
    if "/" in name or (not name[:1].isdecimal() and path.is_dir()):
        parts = path.resolve().parts
        if len(parts) > 3 and parts[-2] == "checkpoints" and parts[-4] == "runs" and parts[-3].isdecimal():
            match = _CHECKPOINT_FOLDER.fullmatch(path.name) or _CHECKPOINT_FOLDER.fullmatch(parts[-1])
            if match and Path(*parts[:-4]) == workspace.root.resolve():
                return int(parts[-3]), str(int(match[1])) if match[1] else match[0]
        if len(parts) > 1 and parts[-2] == "runs" and parts[-1].isdecimal():
            return int(parts[-1]), ""
        return None, ""
    if not name[:1].isdecimal() and (workspace.root / FOLDER / name).is_dir():
        return None, ""
    run_id, point = parse_checkpoint_name(name)
    return run_id, point if "@" in name else ""


def _evaluation(workspace: Workspace, letter: str, name: str) -> ResolvedEvaluation:
    for folder in (Path(name).expanduser(), workspace.root / FOLDER / name):
        result = read_result(folder)
        if result:
            title = f"{result.model} on {result.data}" if result.data else result.model
            subject = Subject(letter, name, result.run_id, title, None, result.step, result.step, is_run=False)
            return ResolvedEvaluation(subject, result)
    raise InputError(
        msg("'{name}' names neither a run, a checkpoint nor an evaluation", name=name[:200]),
        "Name a run (41), a checkpoint (41@best) or an evaluation's folder (runs/41/evaluations/...).",
    )


def _store_of(stack: contextlib.ExitStack, workspace: Workspace, run_id: int, conn: Connection | None) -> Connection:
    """A store that knows the run as it is now: the workspace's, else one made for it from its folder."""
    folder = workspace.runs / str(run_id)
    imported = progress_queries.imported_bytes(conn, run_id) if conn is not None else None
    if conn is not None and imported is not None:
        try:
            status = (folder / journal.NAME).stat()
        except OSError:
            return conn
        if status.st_size <= imported or time.time() - status.st_mtime < _IMPORTED_LATE_SECONDS:
            return conn
    if not folder.is_dir():
        if conn is not None and imported is not None:
            return conn
        workspace.run_folder(run_id)  # raises, naming the runs there are
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        config = {}
    return stack.enter_context(contextlib.closing(progress_queries.read_folder(run_id, folder, config)))


def _run(workspace: Workspace, letter: str, name: str, conn: Connection, run_id: int, point: str) -> ResolvedRun:
    run = queries.run(conn, run_id)
    if run is None:  # deleted between two looks
        raise InputError(msg("there is no run {run_id} in {root}", run_id=run_id, root=workspace.root))
    series = queries.series(conn, run_id)
    reached = max((s.last_step for key, s in series.items() if key.startswith(("train/", "eval/"))), default=None)
    step = last = reached
    no_better, best = "", run.best
    if point:
        step = last = _step_of(conn, run, point, reached)
    elif best.step is not None:
        step = best.step
    if best.step is not None and point in ("", "best"):
        no_better = "" if best.improved else f"{best.metric} {best.words(lambda value: f'{value:.4g}')}"
    title = run.name or Path(run.model).name
    subject = Subject(letter, name, run_id, title, run.state, step, last, not point, best.criterion, no_better)
    return ResolvedRun(subject, conn, run, workspace.runs / str(run_id), series)


def _step_of(conn: Connection, run: Run, point: str, reached: int | None) -> int:
    """The step a named checkpoint of the run stands at."""
    checkpoints = queries.checkpoints(conn, run.id, removed=True)
    if point.isdecimal():
        step = int(point)
        if step in {checkpoint.step for checkpoint in checkpoints} or step <= (reached if reached is not None else -1):
            return step
        raise InputError(msg("run {id} has not reached step {step:,}", id=run.id, step=step), _there_are(checkpoints))
    if point == "latest" and checkpoints:
        return max(checkpoint.step for checkpoint in checkpoints)
    for checkpoint in checkpoints:
        if point in checkpoint.kept:
            return checkpoint.step
    if point == "best" and run.best_eval_step is not None:
        return run.best_eval_step if run.best.improved else 0
    raise InputError(msg("run {id} has no checkpoint '{point}'", id=run.id, point=point), _there_are(checkpoints))


def _there_are(checkpoints: Sequence[Checkpoint]) -> str:
    names = [str(checkpoint.step) for checkpoint in checkpoints if checkpoint.removed is None]
    kept = sorted({label for checkpoint in checkpoints for label in checkpoint.kept})
    return msg("It has {checkpoints}.", checkpoints=", ".join([*kept, *names][:20])) if names else "It has none yet."
