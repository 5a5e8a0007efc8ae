"""The command line: words to functions. Imports neither torch nor textual."""

import argparse
import os
import sys

from engine import __version__
from engine.cli import demo, presets, train
from engine.errors import EngineError


def build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--workspace", metavar="DIR", help="where runs live (default: the nearest with runs.db, or here)"
    )
    common.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="finetop",
        description="Fine-tune language models on your own machine.",
        epilog="examples:\n  finetop demo --headless\n  finetop train --preset quick --data-file chats.jsonl\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"finetop {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train.add_parsers(commands, common)
    demo.add_parser(commands, common)
    presets.add_parser(commands, common)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 the run or check failed, 2 wrong input."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except EngineError as error:
        if options.traceback:
            raise
        print(f"finetop: {error.message}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `finetop plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
