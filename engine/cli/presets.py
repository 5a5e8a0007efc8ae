"""`finetop presets [NAME]`."""

import argparse
import json

from engine.presets import all_presets, find_preset, user_folder


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
        rows = [{"name": p.name, "path": str(p.path), "head": p.head, "settings": p.settings()} for p in chosen]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif options.name:
        print(f"{chosen[0].head}\n")
        for path, value in chosen[0].settings().items():
            print(f"  {path} = {value}")
        print(f"\n{chosen[0].path}")
    else:
        width = max(len(preset.name) for preset in chosen)
        for preset in chosen:
            print(f"{preset.name:<{width}}  {preset.summary}")
        print(f"\nYour own: TOML files in {user_folder()}")
    return 0
