"""What a front end may do to a run's checkpoint folders. The worker writes them
(engine/worker/runtime/checkpoint.py)."""

import errno
import os
import re
import shutil
from pathlib import Path

from engine.base.errors import CheckpointError, InputError
from engine.base.messages import msg
from engine.base.workspace import CHECKPOINTS, PINNED

STEP_NAME = re.compile(r"step-(\d{8,})")
_NOT_WEIGHTS = ("training_state.pt", PINNED)


def steps(folder: Path) -> list[int]:
    """The steps of all whole checkpoints in a run's checkpoints folder, ascending."""
    try:
        return sorted(int(match[1]) for name in os.listdir(folder) if (match := STEP_NAME.fullmatch(name)))
    except FileNotFoundError:
        return []


def checkpoint_folder(folder: Path, point: str) -> Path:
    """The folder of the checkpoint called `point` (latest, best, epoch-N or a step). InputError names what there is."""
    checkpoints = folder / CHECKPOINTS
    try:
        names = sorted(os.listdir(checkpoints))
    except OSError:
        names = []
    links = [name for name in names if name in ("best", "latest") or name.startswith("epoch-")]
    steps = [int(match[1]) for name in names if (match := STEP_NAME.fullmatch(name))]
    path = path_of(checkpoints, int(point)) if point.isdecimal() else checkpoints / point
    if (point in links or (point.isdecimal() and int(point) in steps)) and path.is_dir():
        return path.resolve()
    available = [*links, *map(str, steps)]
    raise InputError(
        msg("run {folder_name} has no checkpoint '{point}'", folder_name=folder.name, point=point),
        msg("It has {available}.", available=", ".join(available)) if available else "It has none yet.",
    )


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint's folder, `step-00000120`."""
    return int(checkpoint.name.removeprefix("step-"))


def is_pinned(folder: Path, step: int) -> bool:
    return (path_of(folder, step) / PINNED).exists()


def pin(folder: Path, step: int, pinned: bool) -> None:
    """Set or take away the marker. Raises CheckpointError where there is no such checkpoint."""
    marker = _existing(folder, step) / PINNED
    try:
        if pinned:
            marker.touch(mode=0o600)
        else:
            marker.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            msg("{marker} cannot be changed: {strerror}", marker=marker, strerror=error.strerror)
        ) from None


def move_out(folder: Path, step: int, to: Path, busy: bool, force: bool) -> None:
    """Move a checkpoint, with the names that point at it, into the folder `to`; what lay there goes. Raises
    CheckpointError where it must stay.

    `busy`: a worker has the run, and goes on from its latest. `force`: also the only one there is.
    """
    path = _existing(folder, step)
    existing = steps(folder)
    if is_pinned(folder, step):
        raise CheckpointError(msg("the checkpoint of step {step} is pinned", step=step), "Unpin it first.")
    if busy and step == existing[-1]:
        raise CheckpointError(
            msg("step {step} is the latest checkpoint of a run that is active", step=step), "Stop the run first."
        )
    if len(existing) == 1 and not force:
        raise CheckpointError(
            msg("step {step} is the only checkpoint: without it the run can only start anew", step=step)
        )
    names = [entry.name for entry in folder.iterdir() if entry.is_symlink() and os.readlink(entry) == path.name]
    try:
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(mode=0o700, parents=True)
        os.rename(path, to / path.name)  # whole here or whole there, also after a crash
        for name in names:
            os.rename(folder / name, to / name)
    except OSError as error:
        raise CheckpointError(msg("{path} cannot be moved: {strerror}", path=path, strerror=error.strerror)) from None
    remaining = steps(folder)
    if remaining and not busy and not (folder / "latest").exists():
        link(folder, "latest", remaining[-1])


def move_back(entry: Path, folder: Path, step: int) -> list[str]:
    """Undo `move_out`, which moved it to `entry`; the names that point at it again. Raises CheckpointError."""
    path = path_of(folder, step)
    if path.exists():
        raise CheckpointError(msg("there is a checkpoint of step {step} again", step=step))
    names = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(entry / path.name, path)
        for name in sorted(os.listdir(entry)):
            if name != "latest" and not os.path.lexists(folder / name):
                os.rename(entry / name, folder / name)
                names.append(name)
        if step == steps(folder)[-1]:
            link(folder, "latest", step)
            names.append("latest")
    except OSError as error:
        raise CheckpointError(
            msg("{path} cannot be moved back: {strerror}", path=entry, strerror=error.strerror)
        ) from None
    shutil.rmtree(entry, ignore_errors=True)
    return names


def untrained_note(path: Path) -> str:
    """What is to be said of the checkpoint in the folder `path` where nothing has been trained in it; else nothing."""
    match = STEP_NAME.fullmatch(path.name)
    if match is None or int(match[1]):
        return ""
    link = path.parent / "best"
    is_best = link.is_symlink() and os.readlink(link) == path.name
    never = "; they are its best, since none that is kept was evaluated better" if is_best else ""
    return msg("these are the untrained weights of step 0, which the run started from{never}", never=never)


def link_weights(checkpoint: Path, to: Path) -> None:
    """All of a checkpoint but its optimizer, as hard links where the file system has them: no bytes are copied.

    A checkpoint's files are never written to again, so a link stays what it was when the checkpoint itself is deleted.
    """
    to.mkdir(mode=0o700)
    for name in sorted(os.listdir(checkpoint)):
        if name in _NOT_WEIGHTS or not (checkpoint / name).is_file():
            continue
        try:
            os.link(checkpoint / name, to / name)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES):
                raise CheckpointError(
                    msg(
                        "{checkpoint} cannot be kept for the fork: {strerror}",
                        checkpoint=checkpoint / name,
                        strerror=error.strerror,
                    )
                ) from None
            try:
                shutil.copy2(checkpoint / name, to / name)
            except OSError as problem:
                raise CheckpointError(
                    msg(
                        "{checkpoint} cannot be copied: {strerror}",
                        checkpoint=checkpoint / name,
                        strerror=problem.strerror,
                    )
                ) from None


def link(folder: Path, name: str, step: int) -> None:
    """Point `folder`/`name` at a step's checkpoint, in one atomic rename."""
    temporary = folder / f".tmp-{name}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path_of(folder, step).name)
    os.replace(temporary, folder / name)


def path_of(folder: Path, step: int) -> Path:
    """Where a step's checkpoint lies in a run's checkpoints folder."""
    return folder / f"step-{step:08d}"


def _existing(folder: Path, step: int) -> Path:
    path = path_of(folder, step)
    if not path.is_dir():
        existing = ", ".join(map(str, steps(folder))) or "none"
        raise CheckpointError(
            msg("there is no checkpoint of step {step}; there are {existing}", step=step, existing=existing)
        )
    return path
