"""The front door: a word goes to the command line; without words the screen opens. Textual is imported only then."""

import argparse
import os
import sys
from pathlib import Path

from engine.base.messages import msg

OPTIONS = ("--readonly", "--ascii", "--mouse", "--theme", "--workspace")
"""What may stand without a command."""
_WITH_VALUE = ("--theme", "--workspace")


def main() -> int:
    """Run a command, or open the screen where no command is named; the exit code."""
    words = sys.argv[1:]
    if not words or (words[0].partition("=")[0] in OPTIONS and not _has_command(words)):
        return screen(words)
    from engine.cli.main import main as command_line  # 30 ms, which the screen does not need

    return command_line(words, None if no_terminal() else tour)


def _has_command(words: list[str]) -> bool:
    """`finetop --workspace DIR ls`: whether a word follows that is no option and no option's value."""
    previous = ["", *words[:-1]]
    return any(word[:1] != "-" and last not in _WITH_VALUE for last, word in zip(previous, words, strict=True))


def screen(words: list[str]) -> int:
    """Open the screen. Exit codes: 0 left by the user, 1 it failed, 2 there is no terminal for it."""
    options = _options(words)
    if why := no_terminal():
        print(
            msg("finetop: {why}\n`finetop --help` lists the commands; they need no terminal.", why=why), file=sys.stderr
        )
        return 2
    return _open(options)


def tour(workspace: Path) -> int:
    """Open the screen on a workspace, with a few words for a newcomer."""
    return _open(_options(["--workspace", str(workspace)]), welcome=True)


def _open(options: argparse.Namespace, welcome: bool = False) -> int:
    # Read by textual when it is imported: 120 pictures a second at most, so that a key shows within 8 ms.
    os.environ.setdefault("TEXTUAL_FPS", "120")
    from tui.open_screen import open_screen

    return open_screen(options, welcome)


def no_terminal() -> str:
    """Why no screen can be opened here; empty if one can."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "the screen needs a terminal, and input or output is none"
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        return msg("the screen needs a terminal that can place text, and TERM is '{term}'", term=term)
    return ""


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="finetop", description="Opens the screen.")
    parser.add_argument(
        "--workspace", metavar="DIR", help="where runs live (default: the nearest with runs.db, or here)"
    )
    parser.add_argument("--readonly", action="store_true", help="look, and change nothing")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.add_argument("--mouse", action="store_true", help="listen to the mouse")
    parser.add_argument("--theme", choices=["auto", "dark", "light", "ansi", "mono"], help="colours (default: auto)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
