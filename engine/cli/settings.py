"""The flags that say what to run, shared by train and plan, and how they become a checked config."""

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

from engine import __version__
from engine.config import (
    MAY_CHANGE_ON_RESUME,
    PATHS,
    Layer,
    Resolved,
    RunConfig,
    diff,
    parse_set,
    parse_value,
    read_config_file,
    read_run,
    resolve,
)
from engine.errors import InputError
from engine.home import CONFIG, Workspace
from engine.presets import find_preset

_FLAGS = {
    "--data-file": ("data.files", "data file, folder or hub dataset; may be given several times"),
    "--val-file": ("data.val_files", "validation data; otherwise a share of the training data is held out"),
    "--model": ("model.name", "hub name, folder, or 'starter' (the default)"),
    "--method": ("method.kind", "full, lora or qlora"),
    "--objective": ("method.objective", "sft (answers to prompts) or pretrain (plain text)"),
    "--batch-size": ("train.batch_size", "examples per optimizer step, or auto"),
    "--epochs": ("train.epochs", "passes over the data, or auto"),
    "--max-steps": ("train.max_steps", "stop after so many optimizer steps"),
    "--learning-rate": ("optim.learning_rate", "peak learning rate, or auto"),
    "--max-length": ("data.max_length", "longest example, in tokens"),
    "--seed": ("train.seed", "seed of adapters, dropout and order"),
    "--name": ("run.name", "name of the run"),
    "--system": ("data.system", "system prompt for conversations that have none"),
    "--map": ("data.map", "columns by hand: prompt=ask,completion=answer"),
}
_REPEATED = ("data.files", "data.val_files")


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to run (a flag beats the config file, which beats the preset)")
    group.add_argument("--preset", metavar="NAME", help="quick, standard, extended, precision, or one of your own")
    group.add_argument("--config", metavar="FILE", type=Path, help="settings in JSON or TOML")
    for flag, (path, text) in _FLAGS.items():
        action = "append" if path in _REPEATED else "store"
        group.add_argument(flag, dest=path, metavar=flag[2:].upper().replace("-", "_"), action=action, help=text)
    group.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="any other setting by its path")
    group.add_argument("--save-config", metavar="FILE", type=Path, help="write the settings there; reproduces the run")


def resolve_settings(options: argparse.Namespace) -> Resolved:
    """Preset, config file and flags, merged and checked. Raises ConfigError or InputError."""
    layers: list[Layer] = []
    if options.preset:
        layers.append(Layer(f"preset {options.preset}", find_preset(options.preset).settings()))
    if options.config:
        layers.append(Layer(str(options.config), read_config_file(options.config)))
    layers += flag_layers(options)
    resolved = resolve([Layer(layer.label, _absolute(layer.values)) for layer in layers])
    if options.save_config:
        save_config(options.save_config, resolved)
    return resolved


def flag_layers(options: argparse.Namespace) -> list[Layer]:
    """One layer for each flag given, so that every setting remembers its own."""
    layers = []
    for flag, (path, _) in _FLAGS.items():
        value = getattr(options, path, None)
        if value is not None:
            literal = path in (*PATHS, "run.name", "data.system", "data.map")
            layers.append(Layer(flag, {path: value if literal else parse_value(value)}))
    layers += [Layer("--set", dict([parse_set(text)])) for text in options.set]
    return layers


def save_config(path: Path, resolved: Resolved) -> None:
    try:
        path.write_text(resolved.config.to_json({"version": __version__}), "utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"--save-config {path}: {getattr(error, 'strerror', error)}") from None


def check_inputs(config: RunConfig) -> None:
    """What can be told to be wrong before a run is made: that data or model are not there. Raises InputError."""
    from engine.formats import ROLES
    from engine.formats.sources import find_origins

    if not config.data.files:
        raise InputError("no data to train on", "Give --data-file FILE, or try the samples: `finetop demo --headless`.")
    find_origins([*config.data.files, *config.data.val_files], plain_text=config.method.objective == "pretrain")
    if unknown := [role for role in config.data.map if role not in ROLES]:
        raise InputError(
            f"data.map: '{unknown[0]}' is nothing a column can be", f"There are {', '.join(ROLES)}: --map prompt=COLUMN"
        )
    name = config.model.name
    folder = os.path.expanduser(name)
    if not name:
        raise InputError("model.name is empty", "Give a folder, a hub name such as org/name, or 'starter'.")
    if os.path.isfile(folder):
        raise InputError(f"the model {name} is a file", "Give the folder of a Hugging Face model.")
    if os.path.isdir(folder):
        if not os.path.exists(os.path.join(folder, "config.json")):
            what = "is an adapter" if os.path.exists(os.path.join(folder, "adapter_config.json")) else "is no model"
            raise InputError(f"{name} {what}: it holds no config.json", "Give the folder of a Hugging Face model.")
    elif name.startswith(("/", "./", "../", "~")) or name.count("/") > 1:
        raise InputError(f"there is no model folder {name}", "Give an existing folder, or a hub name: org/name.")


def create_run(workspace: Workspace, resolved: Resolved) -> tuple[int, Path]:
    """A new run's folder with its config.json: every setting, and where each came from."""
    config = resolved.config
    run_id, folder = workspace.new_run()
    if not config.run.name:
        stem = Path(config.data.files[0]).stem if config.data.files else "nothing"
        config = config.replace({"run.name": f"{Path(config.model.name).name}-{stem}-{config.method.kind}".lower()})
    _write_config(folder, config, resolved.origin)
    return run_id, folder


def changed_run(folder: Path, layers: list[Layer]) -> Resolved:
    """An existing run's settings with the flags of a resume over them."""
    before = read_run(folder)
    after = resolve([Layer("run", before.config.flat()), *(Layer(one.label, _absolute(one.values)) for one in layers)])
    given = {key for layer in layers for key in layer.values}
    origin = {key: label if key in given else before.origin[key] for key, label in after.origin.items()}
    return Resolved(after.config, origin)


def change_run(folder: Path, layers: list[Layer]) -> None:
    """Change settings of an existing run, such as its epochs, before it is resumed."""
    after = changed_run(folder, layers)
    _write_config(folder, after.config, after.origin)


def refuse_other_course(folder: Path, layers: list[Layer]) -> None:
    """InputError for changes that would make the resumed run another run. Nothing has been written yet."""
    changes = diff(read_run(folder).config, changed_run(folder, layers).config)
    forbidden = {path: values for path, values in changes.items() if not path.startswith(MAY_CHANGE_ON_RESUME)}
    if forbidden:
        lines = [f"{path} was {old!r}, would be {new!r}" for path, (old, new) in forbidden.items()]
        raise InputError(
            f"a resumed run stays the run it was:\n  {chr(10).join(lines)}",
            "It may go on further (--epochs, --max-steps) and evaluate and save differently; else start a new run.",
        )


def _write_config(folder: Path, config: RunConfig, origin: dict[str, str]) -> None:
    """Whole or not at all; readable by nobody else, since prompts and names may be private."""
    new = folder / f"{CONFIG}.new"
    try:
        with open(new, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(config.to_json({"version": __version__, "origin": origin}))
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / CONFIG)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise InputError(f"{folder / CONFIG} cannot be written: {error.strerror}") from None


def _absolute(values: dict[str, Any]) -> dict[str, Any]:
    """Paths that exist here made absolute, so that the saved settings mean the same from anywhere."""

    def one(value: Any) -> Any:
        return os.path.abspath(os.path.expanduser(value)) if _exists(value) else value

    made = dict(values)
    for path in PATHS:
        value = made.get(path)
        if path == "model.name" and value == "starter":
            continue
        if isinstance(value, str) and path in _REPEATED and not _exists(value):
            value = [item.strip() for item in value.split(",") if item.strip()]
        elif isinstance(value, str) and path in _REPEATED:
            value = [value]  # a comma parts a list, unless it is in the name of a file that is there
        if isinstance(value, list):
            made[path] = [one(item) for item in value]
        elif value is not None:
            made[path] = one(value)
    return made


def _exists(value: Any) -> bool:
    return isinstance(value, str) and value != "" and os.path.exists(os.path.expanduser(value))
