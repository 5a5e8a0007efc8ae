"""What can be evaluated or asked, by name: a run's checkpoint, its base model, a model folder, a name on the hub."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace, parse_checkpoint_name
from engine.models.model_name import ADAPTER, is_path
from engine.runs.checkpoints import checkpoint_folder, step_of
from engine.runs.journal import began
from engine.runs.relocate import located
from engine.settings.resolve import Layer, from_groups, resolve
from engine.settings.schema import RunConfig

BASE = "base"
_MANIFEST, _MODEL = "manifest.json", "config.json"


@dataclass(frozen=True, slots=True)
class ModelRef:
    """One model, and the settings it is read, templated and computed with."""

    name: str
    """As the user wrote it."""
    run: int | None
    step: int | None
    """None: the base model itself."""
    base: str
    """Folder or hub name of the model that is loaded."""
    adapter: str
    """Folder of the adapter put on it, or empty."""
    tokenizer: str
    """Folder or hub name; a checkpoint brings its own, with the chat template in force."""
    config: RunConfig

    @property
    def checkpoint(self) -> Path | None:
        """The folder of a run's checkpoint; None: the model is none."""
        return None if self.step is None else Path(self.adapter or self.base)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "run": self.run,
            "step": self.step,
            "base": self.base,
            "adapter": self.adapter,
            "tokenizer": self.tokenizer,
            "config": self.config.flat(),
        }

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "ModelRef":
        return ModelRef(**fields | {"config": resolve([Layer("request", fields["config"])]).config})


def find_model_refs(workspace: Workspace, names: list[str]) -> list[ModelRef]:
    """Every one of the names. `base` is the base model of the first run among them. Raises InputError."""
    first_run = next((name for name in names if name != BASE and _is_run(name)), None)
    refs = []
    for name in names:
        if name == BASE:
            if first_run is None:
                raise InputError("'base' of which run?", "Say 41@base, or name the model itself: a folder, org/name.")
            refs.append(_base_of(workspace, int(first_run.partition("@")[0]), name))
        elif _is_run(name) and name.endswith(f"@{BASE}"):
            refs.append(_base_of(workspace, int(name.partition("@")[0]), name))
        elif _is_run(name):
            run_id, point = parse_checkpoint_name(name)
            run = workspace.run_folder(run_id)
            folder = checkpoint_folder(run, point)
            refs.append(_checkpoint(folder, name, run_id, step_of(folder), located(run).config))
        else:
            refs.append(_folder_or_hub(workspace, name))
    return refs


def with_settings(refs: list[ModelRef], settings: Mapping[str, Any]) -> list[ModelRef]:
    """The same models, loaded and asked by these settings. Raises InputError for what they cannot be."""
    layer = Layer("--set", dict(settings))
    return [replace(ref, config=resolve([Layer("run", ref.config.flat()), layer]).config) for ref in refs]


def _is_run(name: str) -> bool:
    return name.partition("@")[0].isdecimal()


def _base_of(workspace: Workspace, run_id: int, name: str) -> ModelRef:
    folder = workspace.run_folder(run_id)
    config = _with_clock(located(folder).config, folder)
    base = _started_from(config)
    return ModelRef(name, run_id, None, base, "", base, config)


def _with_clock(config: RunConfig, run: Path) -> RunConfig:
    """Where a template writes the time, the run's models are asked as it was trained."""
    when = began(run) if config.data.clock == "auto" else None
    return config if when is None else config.replace({"data.clock": datetime.fromtimestamp(when).isoformat()})


def _started_from(config: RunConfig) -> str:
    """The model whose weights the run's own are a change of."""
    checkpoint = Path(config.model.checkpoint).expanduser() if config.model.checkpoint else None
    return str(checkpoint) if checkpoint and (checkpoint / _MODEL).exists() else config.model.name


def _checkpoint(folder: Path, name: str, run_id: int | None, step: int, config: RunConfig) -> ModelRef:
    adapter = (folder / ADAPTER).exists()
    base = _started_from(config) if adapter else str(folder)
    config = _with_clock(config, folder.resolve().parent.parent)
    return ModelRef(name, run_id, step, base, str(folder) if adapter else "", str(folder), config)


def _folder_or_hub(workspace: Workspace, name: str) -> ModelRef:
    folder = Path(os.path.abspath(os.path.expanduser(name)))
    if not folder.is_dir():
        if is_path(name) or folder.is_file():
            raise InputError(
                msg("there is no model folder {name}", name=name), "Name a checkpoint (41@best), a folder, or org/name."
            )
        return ModelRef(name, None, None, name, "", name, RunConfig().replace({"model.name": name}))
    folder = folder.resolve()
    if (folder / _MANIFEST).exists():
        manifest = _read(folder / _MANIFEST)
        settings, step = manifest.get("config"), manifest.get("step")
        if isinstance(settings, dict) and isinstance(step, int):
            config = from_groups(settings, f"{folder.name}/{_MANIFEST}")
            run = folder.parent.parent
            run_id = int(run.name) if run.parent == workspace.runs.resolve() and run.name.isdecimal() else None
            return _checkpoint(folder, name, run_id, step, config)
    if (folder / ADAPTER).exists():
        base = _read(folder / ADAPTER).get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            raise InputError(msg("{folder} does not name the model it belongs to", folder=folder / ADAPTER))
        tokenizer = str(folder) if (folder / "tokenizer_config.json").exists() else base
        return ModelRef(name, None, None, base, str(folder), tokenizer, RunConfig().replace({"model.name": base}))
    if not (folder / _MODEL).exists():
        raise InputError(
            msg("{name} holds no config.json, so it is not a model", name=name),
            "Give the folder of a model or adapter.",
        )
    return ModelRef(name, None, None, str(folder), "", str(folder), RunConfig().replace({"model.name": str(folder)}))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(msg("{path} cannot be read: {error}", path=path, error=error)) from None
    return content if isinstance(content, dict) else {}
