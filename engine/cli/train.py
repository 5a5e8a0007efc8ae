"""`finetop train` and `finetop plan`."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine import journal
from engine.cli.settings import add_setting_flags, change_run, create_run, flag_layers, resolve_settings
from engine.cli.watch import Watcher, data_warnings
from engine.config import SETTINGS, Resolved
from engine.errors import EngineError, InputError
from engine.home import Workspace, find_workspace, parse_checkpoint_name
from engine.process import spawn_worker, worker_command, worker_environment

_EXAMPLES = """\
examples:
  finetop train --preset quick --data-file chats.jsonl
  finetop train --model Qwen/Qwen2.5-7B-Instruct --method qlora --data-file rows.csv --epochs 2
  finetop train --resume 41@1200
"""
_PLAN_EXAMPLES = """\
examples:
  finetop plan --preset standard --data-file chats.jsonl
  finetop plan --config run.json --show 3
"""


def add_parsers(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    train = commands.add_parser(
        "train", help="train one run now, in the foreground", epilog=_EXAMPLES, formatter_class=style, parents=[common]
    )
    add_setting_flags(train)
    train.add_argument(
        "--resume", nargs="?", const="", metavar="ID[@CKPT]", help="go on with a run: the newest, or the one named"
    )
    train.add_argument("--dry-run", action="store_true", help="show what would run and start nothing (same as plan)")
    train.set_defaults(run=run_train)
    plan = commands.add_parser(
        "plan",
        help="what would run: settings, data, steps; starts nothing",
        epilog=_PLAN_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    add_setting_flags(plan)
    plan.set_defaults(run=run_plan)
    for parser in (train, plan):
        parser.add_argument("--show", type=int, default=0, metavar="N", help="with the plan: N examples as trained on")
        parser.add_argument("--json", action="store_true", help="print as JSON")


def run_train(options: argparse.Namespace) -> int:
    if options.dry_run:
        return run_plan(options)
    workspace = find_workspace(options.workspace)
    if options.resume is not None:
        return _resume(options, workspace)
    run_id, folder = create_run(workspace, resolve_settings(options))
    print(f"run {run_id}: {folder}", file=sys.stderr)
    return Watcher(run_id, folder).follow(spawn_worker(folder))


def _resume(options: argparse.Namespace, workspace: Workspace) -> int:
    if options.preset or options.config:
        raise InputError("--resume goes on with the run's own settings; --preset and --config start a new one")
    if options.resume:
        run_id, point = parse_checkpoint_name(options.resume)
    else:
        ids = workspace.run_ids()
        if not ids:
            raise InputError(f"there is no run to resume in {workspace.root}")
        run_id, point = ids[-1], "latest"
    folder = workspace.run_folder(run_id)
    events, _ = journal.read(folder)
    states = [event for event in events if event["kind"] == "state"]
    layers = flag_layers(options)
    if layers:
        change_run(folder, layers)
    elif states and states[-1]["state"] == "done" and point == "latest":
        raise InputError(
            f"run {run_id} is done, there is nothing left to do",
            f"Train further with: finetop train --resume {run_id} --epochs N",
        )
    print(f"run {run_id}: {folder}", file=sys.stderr)
    return Watcher(run_id, folder).follow(spawn_worker(folder, point))


def run_plan(options: argparse.Namespace) -> int:
    resolved = resolve_settings(options)
    report = data_report(resolved, options.show)
    if options.json:
        print(json.dumps({"settings": resolved.config.flat(), "origin": resolved.origin, **report}, indent=2))
        return 0
    _print_settings(resolved, report["auto"])
    _print_data(report)
    for number, pieces in enumerate(report["examples"], 1):
        print(f"\nexample {number}, trained tokens {_marked('like this', True)}:")
        print("".join(_marked(_visible(text), trained) for text, trained in pieces))
    return 0


def data_report(resolved: Resolved, show: int = 0) -> dict[str, Any]:
    """What the worker finds out about the data with the model's own tokenizer. Nothing is trained or kept."""
    with tempfile.TemporaryDirectory(prefix="finetop-plan-") as scratch:
        _, folder = create_run(Workspace(Path(scratch)), resolved)
        done = subprocess.run(
            worker_command(str(folder), "--report", str(show)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=worker_environment(),
            check=False,
        )
    if done.returncode:
        error = EngineError(done.stderr.decode("utf-8", "replace").strip())
        error.exit_code = done.returncode
        raise error
    return json.loads(done.stdout)


def _print_settings(resolved: Resolved, auto: dict[str, Any]) -> None:
    flat = resolved.config.flat()
    width = max(map(len, SETTINGS))
    print("settings")
    for path in SETTINGS:
        value = flat[path]
        shown = f"auto → {auto[path]:g}" if path in auto else _short(value)
        print(f"  {path:<{width}}  {shown:<32}  {resolved.origin[path]}")


def _print_data(report: dict[str, Any]) -> None:
    data, plan = report["data"], report["plan"]
    print("\ndata")
    for file in data["files"]:
        columns = ", ".join(f"{role}={column}" for role, column in file["columns"].items())
        print(f"  {file['path']}")
        print(
            f"    {file['rows']:,} rows, {file['bad_rows']:,} bad; {file['container']}, {file['encoding']}, "
            f"{file['format']}{f' ({columns})' if columns else ''}; sha256 {file['sha256'][:12]}"
        )
    for name in ("train", "val"):
        counts = data[name]
        if counts["examples"]:
            print(
                f"  {name}: {counts['examples']:,} examples, {counts['tokens']:,} tokens, {counts['supervised']:,} "
                f"trained on, longest {counts['longest']:,}"
            )
            print(f"    lengths up to: {_histogram(counts['histogram'])}")
    if data["labels"]:
        print(f"  classification with {data['labels']} labels")
    for line in data_warnings(data):
        print(f"  {line}")
    epochs = plan["total_steps"] / plan["steps_per_epoch"]
    print("\nplan")
    print(f"  {plan['total_steps']:,} optimizer steps, {plan['steps_per_epoch']:,} an epoch")
    print(
        f"  {data['train']['tokens'] * epochs:,.0f} tokens in all; packing saves {report['padding_saved']:.0%} padding"
    )


def _histogram(counts: dict[str, int]) -> str:
    return ", ".join(f"{length}: {count:,}" for length, count in counts.items())


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = text if len(text) <= 60 else f"…{text[-59:]}"
    return text.replace("\n", "⏎") or "—"


def _visible(text: str) -> str:
    """Control characters made visible, line breaks kept: text from a file is shown, never interpreted."""
    return "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _marked(text: str, trained: bool) -> str:
    if not trained:
        return text
    return f"\x1b[7m{text}\x1b[0m" if sys.stdout.isatty() else f"⟦{text}⟧"
