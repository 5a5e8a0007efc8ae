"""The command line: words to functions. Imports neither torch nor textual."""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import __version__
from engine.base.errors import EngineError
from engine.base.system_errors import system_error
from engine.cli.parser import Parser
from engine.present.text import visible

_COMMANDS = {
    "train": {
        "train": "train one run now, in the foreground",
    },
    "plan": {
        "plan": "what would run, in which memory, how long, at what cost; starts nothing",
    },
    "add": {
        "add": "queue a run; the same flags as train",
        "sweep": "queue a group of runs whose settings vary",
    },
    "list_runs": {
        "ls": "running, waiting and why, and the last finished",
        "history": "all runs as a table with their results",
    },
    "show": {
        "show": "one run: state, settings, events, checkpoints, what went wrong",
    },
    "logs": {
        "logs": "what a run's worker printed; with -f how it goes",
    },
    "checkpoint_list": {
        "checkpoints": "checkpoints of a run, or of all",
    },
    "run_actions": {
        "stop": "save, then exit; a waiting run leaves the queue",
        "kill": "end at once, unsaved",
        "resume": "queue a run again, to go on from a checkpoint",
        "fork": "queue a new run from a checkpoint, with other settings",
        "hold": "keep waiting runs from starting",
        "release": "let held runs take their turn",
        "move": "change a run's place in the queue",
    },
    "removal": {
        "rm": "move runs or checkpoints to the trash",
        "restore": "take them back out of the trash",
        "trash": "what lies in the trash, and how much it takes",
    },
    "edit": {
        "edit": "give runs another name, tags or a note",
    },
    "compare": {
        "compare": "runs or checkpoints side by side: results, how sure, settings, cost",
    },
    "export": {
        "export": "hand a checkpoint over: adapter, merged model or GGUF",
    },
    "data": {
        "data": "look after data files: check, show, clean, convert, split",
    },
    "eval": {
        "eval": "score checkpoints, base models or folders on data",
    },
    "sample": {
        "sample": "prompts answered by several models, side by side",
        "samples": "how a run answered eval.prompts at each evaluation",
    },
    "demo": {
        "demo": "watch a small model learn sample data, on the screen or in lines",
    },
    "list_presets": {
        "presets": "list presets, or show one",
    },
    "top": {
        "top": "GPUs, their processes, and the host, printed once",
    },
    "rebuild": {
        "rebuild": "make runs.db again from the run folders",
    },
    "doctor": {
        "doctor": "versions, paths, GPU, disk, daemon: what would not work, and what to do",
    },
    "daemon": {
        "daemon": "start, stop or look at what runs the queue",
    },
    "init": {
        "init": "make a folder with sample data, settings, clients and a service",
    },
    "serve_api": {
        "serve": "answer OpenAI's clients: fine-tuning jobs, models, chat",
    },
}
"""Which module of engine.cli.commands has which commands, in the order of the help, and what they do: loading them all
to say so would take a tenth of a second."""
_HELP = {name: text for names in _COMMANDS.values() for name, text in names.items()}


class _Commands(argparse._SubParsersAction):
    """Adds commands, each with its line of `finetop --help`."""

    def add_parser(self, name: str, **options: Any) -> Any:
        return super().add_parser(name, help=_HELP[name], **options)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands, or only of those beside `command`: the other modules need not be loaded for it."""
    common = _common(defaults=False)
    parser, commands = _front()
    for name in [module for module, names in _COMMANDS.items() if command in names] or _COMMANDS:
        module = importlib.import_module(f"engine.cli.commands.{name}")
        register = getattr(module, "add_parsers", None) or module.add_parser
        register(commands, common)
    return parser


def front_page() -> argparse.ArgumentParser:
    """What `finetop --help` shows, and what tells a mistyped command: the commands by name only."""
    parser, commands = _front()
    for name in _HELP:
        commands.add_parser(name)
    return parser


def _common(defaults: bool) -> Parser:
    """The options that may stand before the command or after it.

    After it they have no defaults, which would undo what was said before.
    """
    parser = Parser(prog="finetop", add_help=False, argument_default=None if defaults else argparse.SUPPRESS)
    parser.add_argument(
        "--workspace", metavar="DIR", help="where runs live (default: the nearest with runs.db, or here)"
    )
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    return parser


def _front() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction]:
    parser = Parser(
        prog="finetop",
        description="Fine-tune language models on your own machine.",
        epilog="examples:\n  finetop demo\n  finetop train --preset quick --data-file chats.jsonl\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_common(defaults=True)],
    )
    parser.add_argument("--version", action="version", version=f"finetop {__version__}")
    return parser, parser.add_subparsers(action=_Commands, title="commands", metavar="COMMAND", required=True)


def main(arguments: list[str] | None = None, tour: Callable[[Path], int] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 the run or check failed, 2 wrong input.

    `tour` opens the screen on a workspace and tells a newcomer the first keys; None where there is no terminal for it.
    """
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)  # what stands in for a terminal may not be able to
    for stream in streams:
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 shows what it can
    show_traceback = False
    try:
        words = sys.argv[1:] if arguments is None else arguments
        command = _command(words)
        options = (build_parser(command) if command in _HELP else front_page()).parse_args(words)
        show_traceback = options.traceback
        options.tour = tour
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
        refusal = system_error(error) if isinstance(error, OSError) and error.strerror else None
        what = refusal.message if refusal else f"{type(error).__name__}: {error}"
        hint = refusal.hint if refusal else ""
        if not hint and not show_traceback:
            hint = "The same command with --traceback shows where."
        print(visible(f"finetop: {what}\n{hint}".rstrip()), file=sys.stderr)
        return 1


def _command(words: list[str]) -> str:
    """The first word that is no common option."""
    if words and words[0].startswith("-"):
        words = _common(defaults=True).parse_known_args(words)[1]
    return words[0] if words else ""


def _print_traceback() -> None:
    import traceback  # 8 ms, rarely wanted

    traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
