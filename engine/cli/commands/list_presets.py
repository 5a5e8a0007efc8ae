"""`finetop presets [NAME]`."""

import argparse
import sys
from typing import Any

from engine.base.errors import ConfigError, EngineError, InputError
from engine.base.messages import msg
from engine.present.text import cells, fit, one_line, print_json, visible
from engine.settings.presets import Preset, all_presets, find_preset, preset_layer, user_folder
from engine.settings.resolve import resolve, without_layer


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "presets",
        parents=[common],
        epilog="examples:\n  finetop presets\n  finetop presets quick\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="show this preset's notes and settings")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    chosen = [find_preset(options.name)] if options.name else all_presets()
    if options.json:
        print_json([_row(preset, strict=bool(options.name)) for preset in chosen])
    elif options.name:
        settings = chosen[0].settings()
        lines = [chosen[0].head, ""] if chosen[0].head else []
        lines += [f"  {path} = {value}" for path, value in settings.items()]
        print(visible("\n".join([*lines, "", str(chosen[0].path)])))
        if problem := _problem(chosen[0]):
            print(msg("\ncannot be used: {problem}", problem=visible(problem)), file=sys.stderr)
    else:
        width = max(cells(one_line(preset.name)) for preset in chosen)
        for preset in chosen:
            problem = _problem(preset)
            words = (
                msg("cannot be used: {problem}", problem=problem)
                if problem
                else preset.summary or _settings_in_a_line(preset)
            )
            print(f"{fit(one_line(preset.name), width)}  {one_line(words)}")
        print(
            msg("\n`finetop presets NAME` shows one. Your own: TOML files in {user_folder}", user_folder=user_folder())
        )
    return 0


def _problem(preset: Preset) -> str:
    """Why it cannot be used; "" if it can. What it leaves open, such as the data, is no problem."""
    try:
        resolve([preset_layer(preset)])
    except EngineError as error:
        if isinstance(error, ConfigError):
            return "; ".join(map(without_layer, error.problems))
        return error.message.removeprefix(f"{preset.path}: ")  # the list names it already
    return ""


def _settings_in_a_line(preset: Preset) -> str:
    return ", ".join(f"{path} = {value}" for path, value in preset.settings().items())


def _row(preset: Preset, strict: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": preset.name, "path": str(preset.path), "head": preset.head}
    try:
        return row | {"settings": preset.settings()}
    except InputError as error:
        if strict:
            raise
        return row | {"problem": error.message}  # one bad file of the user's does not hide the others
