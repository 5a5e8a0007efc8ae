"""The models that a run on this machine can name without a download."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.models.model_shape import cached_config, hub_cache

_MOST_ENTRIES = 1000
"""Of a folder that is looked through: one of data may hold millions of files."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that is here."""

    name: str
    """As `model.name` takes it."""
    source: str
    """Where it is from, in words."""


def local_models(folders: Iterable[Path], used: Iterable[str] = ()) -> list[LocalModel]:
    """The starter, the models `used` before that are still here, the hub's cache, and the models that lie in `folders`
    or in a folder `models` there. Reads folders."""
    models = [LocalModel("starter", "ships with finetop")]
    models += [LocalModel(name, "of an earlier run") for name in used if _is_here(name)]
    models += [LocalModel(name, "in the hub's cache") for name in cached_models()]
    for folder in folders:
        for at in (folder, folder / "models"):
            models += [LocalModel(str(path), "a folder") for path in _folders(at) if is_model(path)]
    return list({os.path.expanduser(model.name): model for model in reversed(models)}.values())[::-1]


def cached_models() -> list[str]:
    """The names of the models in the hub's cache, as huggingface_hub lays it out, that have a config.json there."""
    names = [path.name.removeprefix("models--") for path in _folders(hub_cache()) if path.name.startswith("models--")]
    return [name for name in (name.replace("--", "/") for name in names) if cached_config(name)]


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model of Hugging Face's layout."""
    try:
        content = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and ("model_type" in content or "architectures" in content)


def _is_here(name: str) -> bool:
    return is_model(Path(os.path.expanduser(name))) or cached_config(name) is not None


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, by name; none where it cannot be read."""
    try:
        with os.scandir(folder) as listing:
            names = sorted(
                entry.name for entry, _ in zip(listing, range(_MOST_ENTRIES), strict=False) if _is_dir(entry)
            )
    except OSError:
        return
    yield from (folder / name for name in names if not name.startswith("."))


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a dead mount
        return False
