"""Files and folders of a run that lie elsewhere by now: known again by their content, wherever they are.

A workspace that was renamed, or moved with all that lay beside it, keeps its inner order. So what is missing is looked
for under the workspace and the folders above it, by the last parts of its old path, and taken where its content is that
of the run: of data the sha256 of each file, of a base model that of its weights (engine/models/weights.py).
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.base.errors import EngineError
from engine.base.workspace import CHECKPOINTS
from engine.formats.sources import find_origins, split_name
from engine.models.weights import fingerprint
from engine.runs.checkpoints import path_of, steps
from engine.runs.run_folder import LISTS_OF_PATHS, path_hashes, read_meta, write_config
from engine.settings.resolve import Resolved, read_run
from engine.settings.schema import PATHS, RunConfig, diff

LABEL = "moved"
"""Where the new place of a setting came from."""
_MANIFEST = "manifest.json"
_MOST_CANDIDATES = 200


def located(folder: Path) -> Resolved:
    """The settings of the run in `folder`, what lies elsewhere by now named where it is. Writes nothing."""
    settings = read_run(folder)
    places = new_places(folder, settings.config)
    return Resolved(settings.config.replace(places), settings.origin | dict.fromkeys(places, LABEL))


def update_paths(folder: Path) -> dict[str, Any]:
    """Write the new places into the run's config.json; which settings that were."""
    settings, settings_now = read_run(folder), located(folder)
    changed = {path: new for path, (_, new) in diff(settings.config, settings_now.config).items()}
    if changed:
        write_config(
            folder,
            settings_now.config,
            with_places(folder, settings.config, settings_now.config) | {"origin": settings_now.origin},
        )
    return changed


def with_places(folder: Path, config: RunConfig, new_config: RunConfig) -> dict[str, Any]:
    """What config.json says beside the settings, when files of the run have come to lie elsewhere."""
    meta, renamed = read_meta(folder), _renamed(config.flat(), new_config.flat())
    meta["files"] = {**(meta.get("files") or {}), **path_hashes(new_config)}
    meta["sha256"] = {renamed(path): sha256 for path, sha256 in known_data(folder).items()}
    if isinstance(meta.get("data"), dict):
        meta["data"] = {renamed(path): entry for path, entry in meta["data"].items()}
    return meta


def new_places(folder: Path, config: RunConfig) -> dict[str, Any]:
    """For each setting that names what is not there any more: where it is. Left out what is not found."""
    flat, new_values = config.flat(), {}
    root = folder.absolute().parent.parent
    for path in PATHS:
        values = flat[path] if path in LISTS_OF_PATHS else [flat[path]]
        if not any(map(is_missing, values)):
            continue
        candidates = [_find(path, value, folder, root, config) if is_missing(value) else value for value in values]
        if candidates != values:
            new_values[path] = candidates if path in LISTS_OF_PATHS else candidates[0]
    return new_values


def known_data(folder: Path) -> dict[str, str]:
    """sha256 of each data file the run was trained on, by its path then and by its new one; of a run that waits, as far
    as they were hashed.
    """
    meta, manifest = read_meta(folder), newest_manifest(folder)
    hashes: dict[str, str] = {}
    if isinstance(queued := meta.get("data"), dict) and not manifest:
        entries = {path: entry for path, entry in queued.items() if isinstance(entry, dict)}
        hashes = {path: entry["sha256"] for path, entry in entries.items() if "sha256" in entry}
    for recorded in (manifest.get("data"), meta.get("sha256")):
        hashes |= recorded if isinstance(recorded, dict) else {}
    return hashes


def newest_manifest(folder: Path) -> dict[str, Any]:
    """That of the run's newest checkpoint that has one; empty where there is none."""
    checkpoints = folder / CHECKPOINTS
    for step in reversed(steps(checkpoints)):
        with contextlib.suppress(OSError, ValueError):
            manifest = json.loads((path_of(checkpoints, step) / _MANIFEST).read_text("utf-8"))
            if isinstance(manifest, dict):
                return manifest
    return {}


def hashes_of(names: Sequence[str], path: str, config: RunConfig) -> list[str]:
    """sha256 of each file that these names stand for as the setting `path`, in the order they are read. Raises
    InputError where one is not there.
    """
    use = "validation" if path == "data.val_files" else "training-only" if config.data.val_files else "training"
    origins = find_origins(list(names), plain_text=config.method.objective == "pretrain", use=use)
    return ["" if origin.on_hub else _sha256(origin.name) for origin in origins]


def known_hashes(names: Sequence[str], hashes: Mapping[str, str]) -> list[str]:
    """Those a run has on record for these names, files or folders."""
    return [
        sha256
        for name in map(_bare, names)
        for path, sha256 in hashes.items()
        if path == name or path.startswith(os.path.join(name, ""))
    ]


def base_of(manifest: Mapping[str, Any]) -> str | None:
    """sha256 of the weights of the base model, as a checkpoint has it on record; older ones do not."""
    base = manifest.get("base")
    return base.get("sha256") if isinstance(base, dict) else None


def same_base(folder: Path | None, manifest: Mapping[str, Any]) -> bool:
    """Whether the weights in this folder are those of a checkpoint's base, as far as it has them on record."""
    sha256 = base_of(manifest)
    weights = fingerprint(folder) if folder and sha256 else None
    return weights is not None and weights.sha256 == sha256


def is_missing(value: str) -> bool:
    """Whether a setting names a place on this machine where there is nothing."""
    return os.path.isabs(value) and not os.path.exists(value) and not os.path.exists(_bare(value))


def _bare(value: str) -> str:
    """The path in a name such as FILE:test."""
    return value if os.path.exists(value) else split_name(value)[0]


def _find(path: str, value: str, folder: Path, root: Path, config: RunConfig) -> str:
    """The new place of one file or folder; the old one where it is not found."""
    is_it, bare = _recognise(path, value, folder, root, config), _bare(value)
    for candidate in _candidates(bare, root):
        path_now = f"{candidate}{value[len(bare) :]}"
        with contextlib.suppress(OSError, EngineError):
            if is_it(Path(path_now)):
                return path_now
    return value


def _recognise(path: str, value: str, folder: Path, root: Path, config: RunConfig) -> Callable[[Path], bool]:
    """Whether a candidate is what `value` was."""
    if path in LISTS_OF_PATHS:
        # Of a run that has not begun, splits that it does not read are on record, too.
        hashes = set(known_hashes([value], known_data(folder)))
        return lambda candidate: bool(hashes) and hashes.issuperset(hashes_of([str(candidate)], path, config))
    if path == "model.name":
        manifest = newest_manifest(folder)
        if manifest and (config.method.kind == "full" or base_of(manifest) is None):
            # Its checkpoints hold all the weights, or do not say what the base's were: by its place in the workspace.
            return lambda candidate: (candidate / "config.json").is_file() and candidate.is_relative_to(root)
        return lambda candidate: same_base(candidate, manifest)
    if path == "model.checkpoint":
        return lambda candidate: (candidate / _MANIFEST).is_file() or (candidate / "config.json").is_file()
    files = read_meta(folder).get("files")
    sha256 = files.get(value) if isinstance(files, dict) else None
    return lambda candidate: candidate.is_file() and sha256 in (None, _sha256(str(candidate)))


def _candidates(value: str, root: Path) -> Iterator[Path]:
    """The old path's last parts under the workspace and each folder above it, nearest and longest first."""
    parts = Path(value).parts[1:]
    count = 0
    for above in (root, *root.parents):
        for begin in range(len(parts)):
            candidate = above.joinpath(*parts[begin:])
            count += 1
            if count > _MOST_CANDIDATES:
                return
            if candidate.exists():
                yield candidate


def _renamed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Callable[[str], str]:
    """The new name of a data file, from settings that name files and folders."""
    pairs = [pair for path in LISTS_OF_PATHS for pair in zip(old[path], new[path], strict=False)]

    def renamed(path: str) -> str:
        for was, now in ((_bare(was), _bare(now)) for was, now in pairs):
            if path == was or path.startswith(os.path.join(was, "")):
                return now + path[len(was) :]
        return path

    return renamed


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
