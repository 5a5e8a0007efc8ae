"""`finetop stop`, `kill`, `resume`, `fork`, `hold`, `release`, `move`: what is done to runs."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace, find_workspace, parse_checkpoint_name
from engine.cli.add_command import add_command
from engine.cli.run_args import (
    add_runs_argument,
    agreed,
    chosen_runs,
    find_run,
    open_control,
    open_store,
    print_outcomes,
)
from engine.cli.settings_flags import add_setting_flags, given_layers, named_setting
from engine.control import Control
from engine.daemon import daemon_client
from engine.present.text import visible
from engine.runs.checkpoints import checkpoint_folder, untrained_note
from engine.settings.coerce import parse_value
from engine.store import queries
from engine.store.connect import Changes, Connection
from engine.store.run_records import ACTIVE, Outcome, RunState

_POLL_SECONDS = 0.2
_DAEMON_SECONDS = 15.0
"""A daemon that has just been started has the lock by then, on a busy machine too."""
_MOVES = ("up", "down", "top", "bottom")


def add_parsers(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    def parser(name: str, run: Callable[[argparse.Namespace], int], *examples: str) -> Any:
        return add_command(commands, common, name, run, examples, "print what became of each as JSON")

    stop = parser("stop", run_stop, "stop 41 42", "stop 41 --wait")
    add_runs_argument(stop, "runs to stop")
    stop.add_argument("--wait", action="store_true", help="return when they have ended")
    kill = parser("kill", run_kill, "kill 41", "kill 40-45 --yes")
    add_runs_argument(kill, "runs to kill")
    kill.add_argument("--yes", action="store_true", help="do not ask")
    resume = parser(
        "resume",
        run_resume,
        "resume 41@1200",
        "resume --interrupted",
        "resume 41 --epochs 5",
    )
    resume.add_argument("runs", nargs="*", metavar="ID[@CKPT]", help="runs: 41, 41@best, 41@1200, 41@epoch-3, 40-45")
    resume.add_argument("--interrupted", action="store_true", help="every run whose worker vanished with the machine")
    resume.add_argument("--epochs", help="passes over the data in all")
    resume.add_argument("--max-steps", help="stop after so many optimizer steps in all")
    resume.add_argument("--data-file", action="append", metavar="FILE", help="where the same data lies by now")
    resume.add_argument("--val-file", action="append", metavar="FILE", help="the same of validation data")
    resume.add_argument("--model", metavar="FOLDER", help="where the same base model lies by now")
    resume.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="another setting that may change"
    )
    fork = parser(
        "fork",
        run_fork,
        "fork 41@best --learning-rate 5e-5 --name gentler",
        "fork 41@1200 --data-file more.jsonl --set lora.dropout=0.1",
    )
    fork.add_argument("checkpoint", metavar="ID[@CKPT]", help="where it starts: 41, 41@best, 41@1200, 41@epoch-3")
    add_setting_flags(fork)
    hold = parser("hold", run_hold, "hold 40-45", "hold --filter group:sweep-2")
    add_runs_argument(hold, "runs to hold")
    release = parser("release", run_release, "release 40-45", "release 43")
    add_runs_argument(release, "runs to release")
    move = parser("move", run_move, "move 41 top", "move 41 3")
    move.add_argument("id", metavar="ID", help="a waiting run")
    move.add_argument("to", metavar="WHERE", help="up, down, top, bottom, or its new place from 1 on")


# wishes


def run_stop(options: argparse.Namespace) -> int:
    words: dict[RunState | None, str] = {RunState.STOPPED: "taken off the queue"}
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    ids = chosen_runs(options, conn)
    with open_control(workspace) as control:
        outcomes = [control.stop(run_id) for run_id in ids]
    for outcome in outcomes:
        for note in outcome.notes:
            print(visible(f"{outcome.run_id}: {note}"), file=sys.stderr)
    if options.wait:
        _wait_for(workspace, conn, [outcome.run_id for outcome in outcomes if outcome])
        outcomes = [_after(conn, outcome) if outcome else outcome for outcome in outcomes]
        words = {state: f"{state}" for state in RunState}
    return print_outcomes([(o, words.get(o.state, "saves and stops")) for o in outcomes], options.json)


def _wait_for(workspace: Workspace, conn: Connection, ids: list[int]) -> None:
    """Until none of them is active any more. EngineError when there is no daemon to end them."""
    changes = Changes(conn)
    daemon_seen = time.monotonic()
    while True:
        if changes.changed() and not any((run := queries.run(conn, run_id)) and run.active for run_id in ids):
            return
        if daemon_client.status(workspace).running:
            daemon_seen = time.monotonic()
        elif time.monotonic() - daemon_seen > _DAEMON_SECONDS:
            raise EngineError(
                "no daemon is there to stop the run",
                msg("finetop daemon start; its log is {daemon_log}", daemon_log=workspace.daemon_log),
            )
        time.sleep(_POLL_SECONDS)


def _after(conn: Connection, outcome: Outcome) -> Outcome:
    run = queries.run(conn, outcome.run_id)
    return Outcome(True, outcome.run_id, run.state if run else None)


def run_kill(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    ids = chosen_runs(options, conn)
    working = [run for run_id in ids if (run := queries.run(conn, run_id)) and run.active]
    names = ", ".join(f"{run.id} ({run.name})" for run in working)
    if working and not options.yes and not agreed(msg("End {names} at once, unsaved?", names=names), for_good=False):
        return 1
    with open_control(workspace) as control:
        outcomes = [control.kill(run_id) for run_id in ids]
    return print_outcomes(
        [(o, "will be killed" if o.state in ACTIVE else "taken off the queue") for o in outcomes], options.json
    )


def run_hold(options: argparse.Namespace) -> int:
    return _each(options, Control.hold, "held")


def run_release(options: argparse.Namespace) -> int:
    return _each(options, Control.release, "takes its turn")


def _each(options: argparse.Namespace, act: Callable[[Control, int], Outcome], words: str) -> int:
    workspace = find_workspace(options.workspace)
    ids = chosen_runs(options, open_store(workspace))
    with open_control(workspace) as control:
        return print_outcomes([(act(control, run_id), words) for run_id in ids], options.json)


def run_move(options: argparse.Namespace) -> int:
    if options.to not in _MOVES and not (options.to.isdecimal() and int(options.to)):
        raise InputError(msg("'{to}' is no place", to=options.to[:40]), "up, down, top, bottom, or a number from 1 on.")
    to = options.to if options.to in _MOVES else int(options.to) - 1
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    (run_id,) = chosen_runs(argparse.Namespace(runs=[options.id]), conn)
    with open_control(workspace) as control:
        outcome = control.move(run_id, to)
    order = [run.id for run in queries.queue(conn)]
    words = (
        msg("is number {position} of {waiting} that wait", position=order.index(run_id) + 1, waiting=len(order))
        if run_id in order
        else ""
    )
    return print_outcomes([(outcome, words)], options.json)


def run_resume(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    changes = dict(map(named_setting, options.set))
    for path, value in (("train.epochs", options.epochs), ("train.max_steps", options.max_steps)):
        if value is not None:
            changes[path] = parse_value(value)
    for path, value in (
        ("data.files", options.data_file),
        ("data.val_files", options.val_file),
        ("model.name", options.model),
    ):
        if value:
            changes[path] = value
    checkpoints: dict[int, str] = {}
    if options.interrupted:
        checkpoints = {run.id: "latest" for run in queries.list_runs(conn, "state:interrupted", sort="id")}
        if not checkpoints and not options.runs:
            print("no run was interrupted", file=sys.stderr)
            return 0
    for word in options.runs:
        if "@" in word:
            run_id, point = parse_checkpoint_name(word)
            checkpoints[run_id] = point
        else:
            checkpoints |= dict.fromkeys(chosen_runs(argparse.Namespace(runs=[word]), conn), "latest")
    if not checkpoints:
        raise InputError("which run?", "finetop resume 41, finetop resume 41@1200, or finetop resume --interrupted")
    with open_control(workspace) as control:
        outcomes = []
        for run_id, point in checkpoints.items():
            outcome = control.resume(run_id, point, changes)
            outcomes.append((outcome, point))
            for note in outcome.notes:
                print(visible(f"{run_id}: {note}"), file=sys.stderr)
    return print_outcomes(
        [(outcome, msg("queued again, from {point}", point=point)) for outcome, point in outcomes], options.json
    )


def run_fork(options: argparse.Namespace) -> int:
    run_id, point = parse_checkpoint_name(options.checkpoint)
    if options.save_config:
        raise InputError("--save-config is for new runs", "A fork's settings are in config.json in its folder.")
    workspace = find_workspace(options.workspace)
    changes: dict[str, Any] = {}
    for layer in given_layers(options):
        changes |= layer.values
    name = str(changes.pop("run.name", ""))
    run = find_run(open_store(workspace), run_id)
    if note := untrained_note(checkpoint_folder(workspace.place(run_id, run.trashed is not None), point)):
        print(visible(f"{options.checkpoint}: {note}"), file=sys.stderr)
    with open_control(workspace) as control:
        forked = control.fork(run_id, point, changes, name)
    if options.json:
        print(json.dumps({"run": forked, "parent": run_id, "folder": str(workspace.runs / str(forked))}))
    else:
        print(forked)
    return 0
