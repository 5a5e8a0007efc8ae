"""`finetop presets [NAME]`."""

import argparse
import json
from typing import Any

from engine.errors import InputError
from engine.presets import Preset, all_presets, find_preset, user_folder


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "presets",
        help="list presets, or show one",
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
        print(json.dumps([_row(preset, strict=bool(options.name)) for preset in chosen], indent=2))
    elif options.name:
        print(f"{chosen[0].head}\n")
        for path, value in chosen[0].settings().items():
            print(f"  {path} = {value}")
        print(f"\n{chosen[0].path}")
    else:
        width = max(len(preset.name) for preset in chosen)
        for preset in chosen:
            print(f"{preset.name:<{width}}  {preset.summary}")
        print(f"\n`finetop presets NAME` shows one. Your own: TOML files in {user_folder()}")
    return 0


def _row(preset: Preset, strict: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": preset.name, "path": str(preset.path), "head": preset.head}
    try:
        return row | {"settings": preset.settings()}
    except InputError as error:
        if strict:
            raise
        return row | {"problem": error.message}  # one bad file of the user's does not hide the others
