"""Checkpoints: a folder that appears whole or not at all, proves itself when read, and can always be resumed.

checkpoints/step-00000120/  adapter or model (safetensors), tokenizer, training_state.pt, manifest.json
checkpoints/{best,latest,epoch-1}  links to such folders

A checkpoint is written under a temporary name, every file is fsynced and hashed, and the folder is renamed last.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.base.atomic_files import sync_folder
from engine.base.errors import CheckpointError, encodable
from engine.base.messages import msg
from engine.runs.checkpoints import STEP_NAME, is_pinned, path_of, steps
from engine.settings.schema import SaveConfig
from engine.worker.model.generation_config import write_generation_config

MANIFEST = "manifest.json"
STATE = "training_state.pt"
_CHECKSUM = "checksum"
"""In a manifest: the sha256 of everything else in it, as JSON with its keys in order."""
_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder, verified or just written."""

    path: Path
    step: int
    epoch: float
    manifest: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Of all its files but the manifest."""
        return sum(entry["bytes"] for entry in self.manifest["files"].values())


def rng_state() -> dict[str, Any]:
    """Every random state training may draw from, readable back with weights_only."""
    generator: Any = np.random.get_state(legacy=False)
    keys, position = generator["state"]["key"], generator["state"]["pos"]
    numpy_keys = torch.from_numpy(keys.astype(np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [generator["bit_generator"], numpy_keys, position, generator["has_gauss"], generator["gauss"]],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])  # there may have been more
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *gauss_state = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *gauss_state))


def save(
    folder: Path,
    step: int,
    epoch: float,
    model: Any,
    tokenizer: Any,
    state: dict[str, Any],
    manifest: dict[str, Any],
    before_rename: Callable[[], None] = lambda: None,
    ends: Sequence[int] = (),
) -> Checkpoint:
    """Write `folder`/step-N. A folder of that name, left by an abandoned course of the run, is replaced.

    `model` and `tokenizer` are written by their own `save_pretrained`, `state` by torch.save, `manifest` as JSON.
    `ends` are the tokens at which answers stop; they go into generation_config.json.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = path_of(folder, step)
    temporary = folder / f"{_TEMPORARY}{target.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    # PEFT would ask the hub whether the vocabulary grew; finetop never resizes it.
    options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(temporary, safe_serialization=True, **options)
    tokenizer.save_pretrained(temporary)
    if ends:
        write_generation_config(model, ends, temporary)
    with open(temporary / STATE, "wb") as file:  # torch's own writer does not say why it failed
        torch.save(state, file)
    files = {path.name: _fsync_and_hash(path) for path in sorted(temporary.iterdir())}
    manifest = {"step": step, "epoch": epoch, **manifest, "files": files}
    manifest[_CHECKSUM] = _checksum(manifest)
    # What is not UTF-8, bytes of a file's name, becomes JSON's own escape, and is the same again when read.
    (temporary / MANIFEST).write_text(encodable(json.dumps(manifest, indent=1, ensure_ascii=False)), "utf-8")
    _fsync_and_hash(temporary / MANIFEST)
    sync_folder(temporary)
    before_rename()
    if target.exists():
        shutil.rmtree(target)
    os.rename(temporary, target)
    sync_folder(folder)
    return Checkpoint(target, step, epoch, manifest)


def verify(path: Path) -> Checkpoint:
    """The checkpoint at `path`. Raises CheckpointError naming the first file that is not as it was written."""
    manifest = read_manifest(path)
    _check_files(path, manifest["files"])
    return Checkpoint(path, manifest["step"], manifest["epoch"], manifest)


def verify_weights(path: Path) -> None:
    """That the weights in a checkpoint's folder are as written; not all of its files need be there.

    A folder without a manifest is taken as it is: a model from elsewhere. Raises CheckpointError.
    """
    if (path / MANIFEST).exists():
        files = read_manifest(path)["files"]
        _check_files(path, {name: entry for name, entry in files.items() if name.endswith(".safetensors")})


def read_manifest(path: Path) -> dict[str, Any]:
    """Raises CheckpointError unless it is whole and as it was written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        if manifest.pop(_CHECKSUM, None) not in (None, _checksum(manifest)):  # those of older versions have none
            raise ValueError("its content changed since it was written")
        if missing := {"step", "epoch", "files"} - manifest.keys():
            raise ValueError(f"it has no {missing.pop()}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            msg("{path}: {manifest} is missing or damaged ({error})", path=path, manifest=MANIFEST, error=error)
        ) from None
    return manifest


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps(manifest, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ).hexdigest()


def _check_files(path: Path, files: dict[str, Any]) -> None:
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(msg("{path}: {name} is missing", path=path, name=name))
        if file.stat().st_size != entry["bytes"]:
            raise CheckpointError(
                msg(
                    "{path}: {name} has {bytes:,} bytes, {written_bytes:,} were written",
                    path=path,
                    name=name,
                    bytes=file.stat().st_size,
                    written_bytes=entry["bytes"],
                )
            )
        with open(file, "rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != entry["sha256"]:
                raise CheckpointError(
                    msg("{path}: {name} is damaged: its content changed since it was written", path=path, name=name)
                )


def load_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `save` was given as `state`; tensors on the CPU, since optimizers move their own."""
    return torch.load(checkpoint.path / STATE, map_location="cpu", weights_only=True)


def find(folder: Path, name: str) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint called `name` (latest, best, epoch-3 or a step), and what is wrong with those that were skipped.

    Only for `latest` is a damaged checkpoint skipped, for the newest good one before it: another name means that very
    checkpoint, and CheckpointError says what is wrong with it. None: there is no checkpoint yet.
    """
    if name != "latest":
        path = path_of(folder, int(name)) if name.isdigit() else folder / name
        if not path.exists():
            available = ", ".join(map(str, steps(folder))) or "none"
            raise CheckpointError(
                msg("there is no checkpoint {name}; there are {checkpoints}", name=name, checkpoints=available),
                "`finetop checkpoints` lists them.",
            )
        return verify(path.resolve()), []
    problems: list[str] = []
    for step in reversed(steps(folder)):
        try:
            return verify(path_of(folder, step)), problems
        except CheckpointError as error:
            problems.append(error.message)
    if problems:
        raise CheckpointError(msg("no checkpoint of this run is whole:\n{problems}", problems="\n".join(problems)))
    return None, []


def clean_up(folder: Path) -> None:
    """Remove what a crash left half-written."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.name.startswith(_TEMPORARY):
                shutil.rmtree(entry, ignore_errors=True)


def set_aside(folder: Path, after_step: int) -> Path | None:
    """Move checkpoints beyond `after_step` into abandoned-N: the run takes another course from there."""
    beyond = [step for step in steps(folder) if step > after_step]
    if not beyond:
        return None
    number = 1 + sum(entry.name.startswith("abandoned-") for entry in folder.iterdir())
    aside = folder / f"abandoned-{number}"
    aside.mkdir(mode=0o700)
    for step in beyond:
        os.rename(path_of(folder, step), path_of(aside, step))
    for entry in folder.iterdir():
        if entry.is_symlink() and not entry.exists():
            entry.unlink()
    return aside


def links(folder: Path) -> dict[int, list[str]]:
    """The names that point at each step."""
    names_by_step: dict[int, list[str]] = {}
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry.is_symlink() and (match := STEP_NAME.fullmatch(os.readlink(entry))):
            names_by_step.setdefault(int(match[1]), []).append(entry.name)
    return names_by_step


def prune(folder: Path, config: SaveConfig) -> list[int]:
    """Delete what the retention settings no longer keep and is not pinned; returns the steps deleted."""
    names = links(folder)
    epochs = sorted(
        (int(n.removeprefix("epoch-")), step) for step, ns in names.items() for n in ns if n[:6] == "epoch-"
    )
    kept_epochs = epochs[-config.keep_epochs :] if config.keep_epochs else epochs
    kept = {step for _, step in kept_epochs}
    kept |= {step for step, ns in names.items() if "latest" in ns or ("best" in ns and config.keep_best)}
    saved_steps, ends = steps(folder), {step for _, step in epochs}
    between = [step for step in saved_steps if step not in ends]
    kept |= set(between[-config.keep_last :] if config.keep_last else between)
    kept |= {step for step in saved_steps if is_pinned(folder, step)}
    removed = [step for step in saved_steps if step not in kept]
    for step in removed:
        for name in names.get(step, []):
            (folder / name).unlink()
        doomed = folder / f"{_TEMPORARY}removed-{step}"  # renamed first, so that a crash leaves no half checkpoint
        os.rename(path_of(folder, step), doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    return removed


def _fsync_and_hash(path: Path) -> dict[str, Any]:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
