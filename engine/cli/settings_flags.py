"""The flags that say what to run, shared by train and plan, and how they become a checked config."""

import argparse
import sys
from pathlib import Path
from typing import Any

from engine import __version__
from engine.base.atomic_files import atomic_write
from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.system_errors import system_error
from engine.present.text import visible
from engine.runs.run_folder import LISTS_OF_PATHS, absolute
from engine.settings.coerce import parse_set, parse_value
from engine.settings.config_file import read_config_file
from engine.settings.presets import SAMPLES, find_preset, preset_layer
from engine.settings.resolve import Layer, Resolved, resolve
from engine.settings.schema import PATHS
from engine.settings.sweep import full_path

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
    "--train-on": ("data.train_on", "the tokens the loss is on: assistant, matching, separate or all"),
    "--seed": ("train.seed", "seed of adapters, dropout and order"),
    "--name": ("run.name", "name of the run"),
    "--system": ("data.system", "system prompt for conversations that have none"),
    "--map": ("data.map", "columns by hand: prompt=ask,completion=answer"),
}

_OF_DATA = ("--model", "--objective", "--max-length", "--train-on", "--system", "--map")
_DATA_FLAGS = {flag: _FLAGS[flag] for flag in _OF_DATA} | {
    "--template": ("data.template", "a Jinja file in place of the model's own chat template"),
    "--format": ("data.format", "what the columns mean, instead of recognising it"),
}
"""Those that bear on what is trained of a row, for a command that is about rows."""

_SAMPLE = {"sft": "intents.csv", "pretrain": "notes.txt"}
"""Trained where no data is given: 600 short questions and what they ask for, or some pages of plain text."""


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to run (a flag beats the config file, which beats the preset)")
    _add_flags(group, _FLAGS)
    group.add_argument("--save-config", metavar="FILE", type=Path, help="write the settings there; reproduces the run")


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Those for a command that shows rows as a run would train them."""
    _add_flags(
        parser.add_argument_group("as which run (a flag beats the config file, which beats the preset)"), _DATA_FLAGS
    )


def _add_flags(group: argparse._ArgumentGroup, flags: dict[str, tuple[str, str]]) -> None:
    group.add_argument("--preset", metavar="NAME", help="quick, standard, extended, precision, or one of your own")
    group.add_argument("--config", metavar="FILE", type=Path, help="settings in JSON or TOML")
    for flag, (path, text) in flags.items():
        action = "append" if path in LISTS_OF_PATHS else "store"
        group.add_argument(flag, dest=path, metavar=flag[2:].upper().replace("-", "_"), action=action, help=text)
    group.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any other setting by its path, or a short name as in sweep: lr=1e-4",
    )


def add_chosen_flags(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Some of these flags and --set, for a command that takes its settings from runs; read by `flag_layers`."""
    for flag in flags:
        path, text = _FLAGS[flag]
        parser.add_argument(flag, dest=path, metavar=flag[2:].upper().replace("-", "_"), help=text)
    text = "a data., eval. or model. setting to go by instead of the run's"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=text)


def chosen_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_chosen_flags` was given, by path. Raises InputError for settings of training."""
    settings: dict[str, Any] = {}
    for layer in flag_layers(options):
        settings |= absolute(layer.values)
    if other := [path for path in settings if not path.startswith(("data.", "eval.", "model.", "method.objective"))]:
        raise InputError(
            msg("--set {other}: nothing is trained here", other=other[0]), "It takes settings of data, eval and model."
        )
    return settings


def resolve_settings(options: argparse.Namespace) -> Resolved:
    """Preset, config file and flags, merged and checked. Raises ConfigError or InputError."""
    resolved = resolve(with_sample(given_layers(options)))
    if options.save_config:
        save_config(options.save_config, resolved)
    return resolved


def with_sample(layers: list[Layer]) -> list[Layer]:
    """With the data that ships, where nothing is said about any; and says so."""
    config = resolve(layers).config
    if config.data.files or config.data.val_files or config.data.map:
        return layers
    sample = SAMPLES / _SAMPLE[config.method.objective]
    print(
        visible(
            msg("no data is given: the sample that ships is taken, {sample}; yours: --data-file FILE", sample=sample)
        ),
        file=sys.stderr,
    )
    return [*layers, Layer("sample", {"data.files": [str(sample)]})]


def given_layers(options: argparse.Namespace) -> list[Layer]:
    """Preset, config file and flags, weakest first; paths are absolute."""
    layers: list[Layer] = []
    if options.preset:
        layers.append(preset_layer(find_preset(options.preset)))
    if options.config:
        layers.append(Layer(str(options.config), read_config_file(options.config)))
    layers += flag_layers(options)
    return [Layer(layer.label, absolute(layer.values)) for layer in layers]


def flag_layers(options: argparse.Namespace) -> list[Layer]:
    """One layer for each flag given, so that every setting remembers its own."""
    layers = []
    for flag, (path, _) in (_FLAGS | _DATA_FLAGS).items():
        value = getattr(options, path, None)
        if value is not None:
            literal = path in (*PATHS, "run.name", "data.system", "data.map")
            layers.append(Layer(flag, {path: value if literal else parse_value(value)}))
    layers += [Layer("--set", dict([named_setting(text)])) for text in options.set]
    return layers


def tell_findings(resolved: Resolved) -> None:
    """On stderr, what of the settings does less than it seems to, as far as that is known without the data."""
    from engine.models.model_facts import find_facts
    from engine.runs.settings_checks import (  # with the model's names: 20 ms, which --help need not pay
        check,
        given_by_hand,
    )

    given = given_by_hand(resolved)
    for finding in check(resolved.config, given, find_facts(resolved.config.model)):
        if not finding.refused:
            print(visible(f"{finding.message}\n{finding.hint}".rstrip()), file=sys.stderr)


def named_setting(text: str) -> tuple[str, Any]:
    """The `KEY=VALUE` of a --set, its key a path or a short name such as `lr`, as in a sweep's --grid."""
    key, value = parse_set(text)
    return full_path(key), value


def save_config(path: Path, resolved: Resolved) -> None:
    try:
        content = resolved.config.to_json({"version": __version__})
        if path.exists() and not path.is_file():  # /dev/stdout
            path.write_text(content, "utf-8")
        else:
            atomic_write(path.resolve(), content, mode=0o666)
    except OSError as error:
        refusal = system_error(error, path)
        raise InputError(f"--save-config {path}: {refusal.message}", refusal.hint) from None
    except ValueError as error:
        raise InputError(f"--save-config {path}: {error}") from None
