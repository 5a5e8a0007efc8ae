"""The command line: words to functions. Imports neither torch nor textual."""

import argparse
import contextlib
import importlib
import os
import sys

from engine import __version__
from engine.cli.slips import Parser
from engine.cli.text import visible
from engine.errors import EngineError

_COMMANDS = {
    "train": ("train",),
    "plan": ("plan",),
    "queue": ("add", "sweep"),
    "look": ("ls", "history"),
    "show": ("show", "logs", "checkpoints"),
    "act": ("stop", "kill", "resume", "fork", "hold", "release", "move", "rm", "restore"),
    "compare": ("compare",),
    "export": ("export",),
    "data": ("data",),
    "eval": ("eval",),
    "sample": ("sample", "samples"),
    "demo": ("demo",),
    "presets": ("presets",),
    "top": ("top",),
    "rebuild": ("rebuild",),
    "doctor": ("doctor",),
    "daemon": ("daemon",),
}
"""Which module of engine.cli has which commands, in the order of the help."""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands, or only of those beside `command`: the other modules need not be loaded for it."""
    common = Parser(add_help=False)
    common.add_argument(
        "--workspace", metavar="DIR", help="where runs live (default: the nearest with runs.db, or here)"
    )
    common.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    parser = Parser(
        prog="finetop",
        description="Fine-tune language models on your own machine.",
        epilog="examples:\n  finetop demo --headless\n  finetop train --preset quick --data-file chats.jsonl\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"finetop {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    wanted = [module for module, names in _COMMANDS.items() if command in names] or _COMMANDS
    for name in wanted:
        module = importlib.import_module(f"engine.cli.{name}")
        register = getattr(module, "add_parsers", None) or module.add_parser
        register(commands, common)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 the run or check failed, 2 wrong input."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 shows what it can
    show_traceback = False
    try:
        words = sys.argv[1:] if arguments is None else arguments
        options = build_parser(words[0] if words else None).parse_args(words)
        show_traceback = options.traceback
        return options.run(options)
    except EngineError as error:
        if show_traceback:
            _print_traceback()
        print(visible(f"finetop: {error.message}\n{error.hint}".rstrip()), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `finetop plan | head`
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if show_traceback:
            _print_traceback()
        if isinstance(error, OSError) and error.strerror:
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        else:
            what = f"{type(error).__name__}: {error}"
        print(visible(f"finetop: {what}"), file=sys.stderr)
        if not show_traceback:
            print("The same command with --traceback shows where.", file=sys.stderr)
        return 1


def _print_traceback() -> None:
    import traceback  # 8 ms, rarely wanted

    traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
