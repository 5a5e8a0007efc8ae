"""A run's folder: made, described, changed. No database, no worker.

config.json holds every setting, and under `finetop` what no setting says: the version, where each value came from, the
fingerprints of the data, and under `queued` what it was queued with (group, parent, runs to wait for).
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import __version__
from engine.base.atomic_files import atomic_write
from engine.base.errors import InputError, as_utf8
from engine.base.messages import msg
from engine.base.workspace import CONFIG, META_KEY, Workspace
from engine.models.model_facts import find_folder
from engine.models.model_name import ADAPTER, check_model_name
from engine.models.weights import check_weights
from engine.runs.data_fingerprint import changes, fingerprints
from engine.settings.resolve import Layer, Resolved, overlay, read_run
from engine.settings.schema import PATHS, RunConfig

if TYPE_CHECKING:
    from engine.metrics.scoring_command import ScoreCommand

LISTS_OF_PATHS = ("data.files", "data.val_files")
_BLANK_BYTES = 1 << 16
_SMALL_BYTES = 4 << 20


def create_run(
    workspace: Workspace, resolved: Resolved, meta: Mapping[str, Any] | None = None, beyond: int = 0
) -> tuple[int, Path]:
    """A new run's folder with its config.json, under an id larger than `beyond` and than all folders there are."""
    run_id, folder = workspace.new_run(beyond)
    try:
        own = {"version": __version__, "origin": resolved.origin, "files": path_hashes(resolved.config)}
        described = own | dict(meta or {})
        if command := score_command(resolved.config, workspace.root):
            described["command"] = command.identity()
        write_config(folder, named(resolved.config), described)
    except InputError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    return run_id, folder


def named(config: RunConfig) -> RunConfig:
    """With a name made of model, data and method where it has none."""
    if config.run.name:
        return config
    stem = Path(config.data.files[0]).stem if config.data.files else "nothing"
    name = f"{Path(config.model.name).name}-{stem}-{config.method.kind}".lower()
    return config.replace({"run.name": as_utf8(name)})  # a file's name may hold any byte


def read_meta(folder: Path) -> dict[str, Any]:
    """What config.json says beside the settings; empty where it cannot be read."""
    try:
        meta = json.loads((folder / CONFIG).read_text("utf-8")).get(META_KEY)
    except (OSError, ValueError, AttributeError):
        return {}
    return meta if isinstance(meta, dict) else {}


def overlaid(base: Resolved, layers: Iterable[Layer]) -> Resolved:
    """Settings with other layers over them, which are remembered for what they set."""
    return overlay(base, [Layer(layer.label, absolute(layer.values)) for layer in layers], "run")


def change_run(folder: Path, layers: list[Layer]) -> Resolved:
    """Change settings of an existing run."""
    settings = overlaid(read_run(folder), layers)
    write_config(folder, settings.config, read_meta(folder) | {"version": __version__, "origin": settings.origin})
    return settings


def path_hashes(config: RunConfig) -> dict[str, str]:
    """sha256 of the small files that settings name, a template and a schema, by their paths."""
    hashes = {}
    for path in (config.data.template, config.eval.schema):
        with contextlib.suppress(OSError, ValueError):
            if os.path.isabs(path) and os.path.getsize(path) < _SMALL_BYTES:
                hashes[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return hashes


def check_inputs(config: RunConfig) -> None:
    """What can be seen to be wrong before a run is made: data or model that are not there, settings that the model
    cannot have, a schema or a command that cannot work. Raises InputError."""
    from engine.runs.settings_checks import check_settings  # which reads a run's folder by this module
    from engine.settings.eval_inputs import check_scores  # 10 ms, of which `ls` and the like need nothing

    check_data(config)
    check_model(config)
    check_scores(config.eval)
    check_settings(config)


def check_data(config: RunConfig) -> None:
    """`check_data_files` and `check_column_roles`."""
    check_data_files(config)
    check_column_roles(config)


def check_data_files(config: RunConfig) -> None:
    """That the data files are there and hold something. Raises InputError."""
    from engine.formats.sources import find_origins

    if not config.data.files:
        raise InputError("no data to train on", "Give --data-file FILE, or try the samples: `finetop demo --headless`.")
    plain_text = config.method.objective == "pretrain"
    for sources, use in ((config.data.files, "training"), (config.data.val_files, "validation")):
        if not sources:
            continue
        origins = find_origins(list(sources), plain_text=plain_text, use=use)
        if all(not origin.on_hub and _is_blank(origin.name, origin.size_bytes) for origin in origins):
            raise InputError(
                msg("{files}: empty", files=", ".join(map(str, sources))), "Each row of a data file is one example."
            )


def check_column_roles(config: RunConfig) -> None:
    """That data.map names what a column can be. Raises InputError."""
    from engine.formats import ROLES

    if unknown := [role for role in config.data.map if role not in ROLES]:
        raise InputError(
            msg("data.map: '{unknown}' is nothing a column can be", unknown=unknown[0]),
            msg("There are {roles}: --map prompt=COLUMN", roles=", ".join(ROLES)),
        )


def _is_blank(path: str, size_bytes: int) -> bool:
    """Nothing in it, or nothing but white space; a long file is taken for data."""
    if size_bytes > _BLANK_BYTES:
        return False
    try:
        with open(path, "rb") as file:
            return not file.read(_BLANK_BYTES).strip()
    except OSError:
        return False  # who reads the data tells why


def check_model(config: RunConfig) -> None:
    """`check_base_model` and `check_checkpoint`."""
    check_base_model(config)
    check_checkpoint(config)


def check_base_model(config: RunConfig) -> None:
    """That a model given as a folder is one. Raises InputError."""
    check_model_name(config.model.name, config.model.revision)
    if folder := find_folder(config.model):  # also a copy of the hub's that was cut short
        check_weights(folder)


def check_checkpoint(config: RunConfig) -> None:
    """That model.checkpoint, if one is named, holds weights this method can start from. The worker compares their
    shapes, too. Raises InputError."""
    if not config.model.checkpoint:
        return
    folder = Path(os.path.expanduser(config.model.checkpoint))
    if not folder.is_dir():
        raise InputError(
            msg("there is no checkpoint folder {folder}", folder=folder),
            "model.checkpoint takes a folder such as runs/41/checkpoints/best.",
        )
    try:
        adapter = json.loads((folder / ADAPTER).read_text("utf-8"))
    except FileNotFoundError:
        if not (folder / "config.json").exists():
            raise InputError(
                msg("{folder} holds neither an adapter nor a model", folder=folder), "Give a checkpoint's folder."
            ) from None
        return
    except (OSError, ValueError) as error:
        raise InputError(msg("{folder} cannot be read: {error}", folder=folder / ADAPTER, error=error)) from None
    if config.method.kind == "full":
        raise InputError(
            "a full fine-tune cannot start from an adapter",
            "Use --method lora, or merge the adapter into a model first (`finetop export`) and give that as --model.",
        )
    shape = {"r": config.lora.r, "use_dora": config.lora.dora, "use_rslora": config.lora.rslora}
    names = {"r": "lora.r", "use_dora": "lora.dora", "use_rslora": "lora.rslora"}
    differing = [key for key in shape if isinstance(adapter, dict) and adapter.get(key, shape[key]) != shape[key]]
    if differing:
        adapter_shape = ", ".join(f"{names[key]} = {json.dumps(adapter[key])}" for key in differing)
        run_shape = ", ".join(f"{names[key]} = {json.dumps(shape[key])}" for key in differing)
        raise InputError(
            msg(
                "the adapter to start from has {adapter_shape}; this run has {run_shape}",
                adapter_shape=adapter_shape,
                run_shape=run_shape,
            ),
            "An adapter keeps its shape: leave these settings as they were, or train a new one.",
        )


def data_fingerprints(config: RunConfig) -> dict[str, dict[str, Any]]:
    return fingerprints(_files(config), plain_text=config.method.objective == "pretrain")


def data_changes(folder: Path, config: RunConfig) -> list[str]:
    """How the data, and the program that scores answers, differ from what they were when the run was queued; empty
    when they do not, or nobody looked."""
    meta = read_meta(folder)
    sentences = []
    if isinstance(meta.get("data"), dict):
        sentences += changes(meta["data"], _files(config), plain_text=config.method.objective == "pretrain")
    command = score_command(config, folder.resolve().parents[1])
    if command and isinstance(meta.get("command"), dict):
        sentences += command.changes(meta["command"])
    return sentences


def score_command(config: RunConfig, workspace: Path) -> "ScoreCommand | None":
    """eval.command as it runs, if there is one."""
    if not config.eval.command:
        return None
    from engine.metrics.scoring_command import ScoreCommand  # 10 ms, of which `ls` and the like need nothing

    return ScoreCommand(config.eval.command, workspace, config.eval.command_seconds)


def _files(config: RunConfig) -> list[str]:
    return [*config.data.files, *config.data.val_files]


def write_config(folder: Path, config: RunConfig, meta: Mapping[str, Any]) -> None:
    """Whole or not at all; readable by nobody else, since prompts and names may be private."""
    try:
        atomic_write(folder / CONFIG, config.to_json(meta), sync=True)
    except OSError as error:
        raise InputError(
            msg("{folder} cannot be written: {strerror}", folder=folder / CONFIG, strerror=error.strerror)
        ) from None


def absolute(values: Mapping[str, Any]) -> dict[str, Any]:
    """Paths that exist here made absolute, so that the saved settings mean the same from anywhere."""

    def absolute_path(value: Any) -> Any:
        if _exists(value):
            return os.path.abspath(os.path.expanduser(value))
        if isinstance(value, str) and ":" in value:
            from engine.formats.sources import split_name

            path, part = split_name(value)  # FILE:test
            return f"{absolute_path(path)}:{part}" if part and _exists(path) else value
        return value

    made = dict(values)
    for path in PATHS:
        value = made.get(path)
        if path == "model.name" and value == "starter":
            continue
        if isinstance(value, str) and path in LISTS_OF_PATHS and not _exists(value):
            value = [item.strip() for item in value.split(",") if item.strip()]
        elif isinstance(value, str) and path in LISTS_OF_PATHS:
            value = [value]  # a comma parts a list, unless it is in the name of a file that is there
        if isinstance(value, list):
            made[path] = [absolute_path(item) for item in value]
        elif value is not None:
            made[path] = absolute_path(value)
    if made.get("eval.command") and isinstance(made["eval.command"], str):
        from engine.metrics.scoring_command import absolute_command

        made["eval.command"] = absolute_command(made["eval.command"])
    return made


def _exists(value: Any) -> bool:
    return isinstance(value, str) and value != "" and os.path.exists(os.path.expanduser(value))
