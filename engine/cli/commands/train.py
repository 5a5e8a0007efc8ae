"""`finetop train`."""

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.worker_process import spawn_worker
from engine.base.workspace import Workspace, find_workspace
from engine.cli.commands import plan
from engine.cli.run_args import open_control, resumed
from engine.cli.settings_flags import add_setting_flags, flag_layers, resolve_settings
from engine.cli.watch_run import Watcher
from engine.control import Control
from engine.present.text import visible
from engine.runs import journal, resume_run
from engine.runs.run_folder import check_inputs
from engine.runs.settings_checks import by_hand

_EXAMPLES = """\
examples:
  finetop train --preset quick --data-file chats.jsonl
  finetop train --model Qwen/Qwen2.5-7B-Instruct --method qlora --data-file rows.csv --epochs 2
  finetop train --resume 41@1200
"""
_BUSY_SECONDS = 3.0
"""The store need not be told for a run to be trained."""


def add_parsers(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    train = commands.add_parser("train", epilog=_EXAMPLES, formatter_class=style, parents=[common])
    add_setting_flags(train)
    train.add_argument(
        "--resume", nargs="?", const="", metavar="ID[@CKPT]", help="go on with a run: the newest, or the one named"
    )
    train.add_argument("--dry-run", action="store_true", help="show what would run and start nothing (same as plan)")
    train.set_defaults(run=run_train)
    plan.add_plan_flags(train)
    train.add_argument("--json", action="store_true", help="print the outcome, or the plan, as JSON")


def run_train(options: argparse.Namespace) -> int:
    if options.dry_run:
        return plan.run(options)
    workspace = find_workspace(options.workspace)
    if options.resume is not None:
        return _resume(options, workspace)
    resolved = resolve_settings(options)
    check_inputs(resolved.config)
    for finding in by_hand(resolved):
        print(visible(f"{finding.message}\n{finding.hint}".rstrip()), file=sys.stderr)
    with open_control(workspace, _BUSY_SECONDS) as control:
        run_id, folder = control.train(resolved)
        return _train(options, control, run_id, folder)


def _train(options: argparse.Namespace, control: Control, run_id: int, folder: Path, point: str = "latest") -> int:
    """Start the worker and watch it to its end; the exit code of the command."""
    print(f"run {run_id}: {folder}", file=sys.stderr)
    workers: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        workers.append(spawn_worker(folder, ["--from", point]))
        with _store_is_no_condition():
            control.began(folder, workers[0].pid)
        return workers[0]

    watcher = Watcher(run_id, folder)
    code = watcher.follow(start)
    with _store_is_no_condition():
        control.ended(folder, workers[0].returncode, watcher.out_of_memory)
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
    run_id, folder, point = resumed(options, workspace)
    with open_control(workspace, _BUSY_SECONDS) as control:
        control.refuse_by_hand(run_id)
        return _go_on(options, control, run_id, folder, point)


def _go_on(options: argparse.Namespace, control: Control, run_id: int, folder: Path, point: str) -> int:
    states = [event for event in journal.read(folder)[0] if event["kind"] == "state"]
    resume = resume_run.check_resume(folder, flag_layers(options), point)
    if not resume.changed and states and states[-1].get("state") == "done" and point == "latest":
        raise InputError(
            msg("run {run_id} is done, there is nothing left to do", run_id=run_id),
            msg("Train further with: finetop train --resume {run_id} --epochs N", run_id=run_id),
        )
    for note in resume.notes:
        print(visible(note), file=sys.stderr)
    resume_run.apply(folder, resume)
    return _train(options, control, run_id, folder, point)
