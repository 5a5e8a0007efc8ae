"""`finetop train` and `finetop plan`."""

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine import journal
from engine.cli.settings import add_setting_flags, flag_layers, resolve_settings
from engine.cli.text import visible
from engine.cli.watch import PLAN_PROBLEMS, Watcher, data_warnings
from engine.config import SETTINGS, Resolved
from engine.control import Control
from engine.errors import EngineError, InputError
from engine.home import Workspace, find_workspace, parse_checkpoint_name
from engine.process import spawn_worker, worker_command, worker_environment
from engine.runs import change_run, changed_run, check_inputs, checkpoint_folder, create_run, refuse_other_course

_EXAMPLES = """\
examples:
  finetop train --preset quick --data-file chats.jsonl
  finetop train --model Qwen/Qwen2.5-7B-Instruct --method qlora --data-file rows.csv --epochs 2
  finetop train --resume 41@1200
"""
_BUSY_SECONDS = 3.0
"""The store need not be told for a run to be trained."""
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
    plan.add_argument("--resume", nargs="?", const="", metavar="ID[@CKPT]", help="the plan of a run that is there")
    for parser in (train, plan):
        parser.add_argument("--show", type=int, default=0, metavar="N", help="with the plan: N examples as trained on")
        parser.add_argument("--json", action="store_true", help="print the plan, or the outcome, as JSON")


def run_train(options: argparse.Namespace) -> int:
    if options.dry_run:
        return run_plan(options)
    workspace = find_workspace(options.workspace)
    if options.resume is not None:
        return _resume(options, workspace)
    resolved = resolve_settings(options)
    check_inputs(resolved.config)
    with Control(workspace, busy_seconds=_BUSY_SECONDS) as control:
        run_id, folder = control.train(resolved)
        return _train(options, control, run_id, folder)


def _train(options: argparse.Namespace, control: Control, run_id: int, folder: Path, point: str = "latest") -> int:
    """Start the worker and watch it to its end; the exit code of the command."""
    print(f"run {run_id}: {folder}", file=sys.stderr)
    workers: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        workers.append(spawn_worker(folder, point))
        with _store_is_no_condition():
            control.began(folder, workers[0].pid)
        return workers[0]

    watcher = Watcher(run_id, folder)
    code = watcher.follow(start)
    with _store_is_no_condition():
        control.ended(folder, workers[0].returncode)
    if options.json:
        last = watcher.last_state
        print(json.dumps({"run": run_id, "folder": str(folder), "state": last.get("state"), "step": last.get("step")}))
    return code


@contextlib.contextmanager
def _store_is_no_condition() -> Iterator[None]:
    """A database that is locked or damaged is told and stops no training: the run's folder holds everything."""
    try:
        yield
    except EngineError as error:
        print(visible(f"finetop: {error.message}"), file=sys.stderr)


def _resume(options: argparse.Namespace, workspace: Workspace) -> int:
    run_id, folder, point = _resumed(options, workspace)
    with Control(workspace, busy_seconds=_BUSY_SECONDS) as control:
        control.refuse_by_hand(run_id)
        return _go_on(options, control, run_id, folder, point)


def _go_on(options: argparse.Namespace, control: Control, run_id: int, folder: Path, point: str) -> int:
    states = [event for event in journal.read(folder)[0] if event["kind"] == "state"]
    layers = flag_layers(options)
    if layers:
        refuse_other_course(folder, layers)
        change_run(folder, layers)
    elif states and states[-1].get("state") == "done" and point == "latest":
        raise InputError(
            f"run {run_id} is done, there is nothing left to do",
            f"Train further with: finetop train --resume {run_id} --epochs N",
        )
    return _train(options, control, run_id, folder, point)


def _resumed(options: argparse.Namespace, workspace: Workspace) -> tuple[int, Path, str]:
    """The run and the checkpoint that --resume names: the newest of all when it names none."""
    if options.preset or options.config or options.save_config:
        raise InputError(
            "--resume goes on with the run's own settings; --preset, --config and --save-config are for a new one",
            "Its settings are in config.json in the run's folder.",
        )
    if options.resume:
        run_id, point = parse_checkpoint_name(options.resume)
    else:
        ids = workspace.run_ids()
        if not ids:
            raise InputError(
                f"there is no run to resume in {workspace.root}", "Runs of another folder: --workspace DIR."
            )
        run_id, point = ids[-1], "latest"
    folder = workspace.run_folder(run_id)
    if point != "latest":  # a run that was stopped before its first checkpoint starts again from the beginning
        checkpoint_folder(folder, point)
    return run_id, folder, point


def run_plan(options: argparse.Namespace) -> int:
    if options.resume is not None:
        _, folder, _ = _resumed(options, find_workspace(options.workspace))
        resolved = changed_run(folder, flag_layers(options))
    else:
        resolved = resolve_settings(options)
    check_inputs(resolved.config)
    report = data_report(resolved, options.show)
    if options.json:
        print(json.dumps({"settings": resolved.config.flat(), "origin": resolved.origin, **report}, indent=2))
        return 0
    _print_settings(resolved, report["auto"])
    _print_data(report)
    for number, pieces in enumerate(report["examples"], 1):
        print(f"\nexample {number}, trained tokens {_marked('like this', True)}:")
        print("".join(_marked(visible(text), trained) for text, trained in pieces))
    return 0


def data_report(resolved: Resolved, show: int = 0) -> dict[str, Any]:
    """What the worker finds out about the data with the model's own tokenizer. Nothing is trained or kept."""
    import tempfile  # 10 ms, which --help need not pay

    with tempfile.TemporaryDirectory(prefix="finetop-plan-") as scratch:
        _, folder = create_run(Workspace(Path(scratch)), resolved)
        done = subprocess.run(
            worker_command(str(folder), "--report", str(show)),
            capture_output=True,
            env=worker_environment(),
            check=False,
        )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode < 0:
            said = f"the worker was killed by signal {-done.returncode} while it read the data\n{said}".strip()
        error = EngineError(said)
        error.exit_code = 2 if done.returncode == 2 else 1
        raise error
    return json.loads(done.stdout)


def _print_settings(resolved: Resolved, auto: dict[str, Any]) -> None:
    flat = resolved.config.flat()
    width = max(map(len, SETTINGS))
    print("settings")
    for path in SETTINGS:
        value = flat[path]
        shown = f"auto → {auto[path]:g}" if path in auto else _short(value)
        print(f"  {path:<{width}}  {visible(shown):<32}  {visible(resolved.origin[path])}")


def _print_data(report: dict[str, Any]) -> None:
    data, plan = report["data"], report["plan"]
    print("\ndata")
    for file in data["files"]:
        columns = ", ".join(f"{role}={column}" for role, column in file["columns"].items())
        print(f"  {visible(file['path'])}")
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
    for line in data_warnings(data, PLAN_PROBLEMS):
        print(f"  {visible(line)}")
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


def _marked(text: str, trained: bool) -> str:
    if not trained:
        return text
    return f"\x1b[7m{text}\x1b[0m" if sys.stdout.isatty() else f"⟦{text}⟧"
