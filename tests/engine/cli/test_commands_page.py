"""docs/commands.md and `finetop --help` list every command, as its own help has it."""

import argparse
import os
from pathlib import Path

from engine.cli.main import build_parser, front_page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "commands.md"
START, END = "UPDATE_GOLDENS=1 writes it again -->\n", "<!-- end -->"


def table() -> str:
    commands = words(build_parser())
    lines = ["", "| command | does | for example |", "|---|---|---|"]
    for command in commands._choices_actions:
        cells = [f"`{command.dest}`", command.help, f"`{example(commands.choices[command.dest])}`"]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, "", ""])


def words(parser: argparse.ArgumentParser) -> argparse._SubParsersAction | None:
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def example(parser: argparse.ArgumentParser) -> str:
    """The first one in its help, or in that of its first word."""
    shown = [line.strip() for line in (parser.epilog or "").splitlines() if line.startswith("  finetop")]
    return shown[0] if shown else example(next(iter(words(parser).choices.values())))


def test_the_page_lists_every_command_with_an_example():
    text = PAGE.read_text("utf-8")
    before, rest = text.split(START)
    told, after = rest.split(END, 1)
    if os.environ.get("UPDATE_GOLDENS"):
        PAGE.write_text(f"{before}{START}{table()}{END}{after}", "utf-8")
        return
    assert told == table(), "UPDATE_GOLDENS=1 writes it again"


def test_the_front_page_says_of_each_command_what_its_own_help_says():
    assert front_page().format_help() == build_parser().format_help()
