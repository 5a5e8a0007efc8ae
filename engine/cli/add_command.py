"""Commands that act on runs, described to argparse in one way."""

import argparse
from collections.abc import Callable
from typing import Any


def add_command(
    commands: argparse._SubParsersAction,
    common: argparse.ArgumentParser,
    name: str,
    run: Callable[[argparse.Namespace], int],
    examples: tuple[str, ...],
    json_help: str,
) -> Any:
    """A command with `--json` and examples below its help; returns its parser."""
    parser = commands.add_parser(
        name,
        epilog="examples:\n" + "".join(f"  finetop {example}\n" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--json", action="store_true", help=json_help)
    parser.set_defaults(run=run)
    return parser
