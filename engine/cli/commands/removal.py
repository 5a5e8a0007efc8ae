"""`finetop rm`, `restore`, `trash`: runs and checkpoints out of the way, back again, or gone for good."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg, msg_n
from engine.base.workspace import CHECKPOINTS, Workspace, find_workspace, folder_bytes, parse_checkpoint_name
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
from engine.present.numbers import ago, bytes_text
from engine.present.text import Column, output_width, print_json, table
from engine.runs.checkpoints import checkpoint_folder, path_of, step_of
from engine.store import trash
from engine.store.connect import Connection
from engine.store.run_records import Outcome, RunState

Chosen = tuple[int, int | None]
"""A run, or the checkpoint of one at a step."""
_NAME = 16


def add_parsers(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    def parser(name: str, run: Callable[[argparse.Namespace], int], *examples: str) -> Any:
        return add_command(commands, common, name, run, examples, "print it as JSON")

    rm = parser("rm", run_rm, "rm 38-40", "rm 41@600", "rm --purge")
    add_runs_argument(rm, "runs, or checkpoints as 41@600")
    rm.add_argument("--purge", action="store_true", help="empty the trash, or delete what is named for good")
    rm.add_argument("--yes", action="store_true", help="do not ask before something is deleted for good")
    restore = parser("restore", run_restore, "restore 38-40", "restore 41@600")
    add_runs_argument(restore, "runs in the trash, or checkpoints as 41@600")
    parser("trash", run_trash, "trash", "trash --json")


def run_rm(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    if options.purge:
        return _purge(options, workspace, conn)
    outcomes, total = [], 0
    chosen = _chosen(options, conn, workspace)
    with open_control(workspace) as control:
        for run_id, step in chosen:
            size = folder_bytes(_folder(workspace, run_id, step))
            # The only checkpoint of a run, too: it can be taken back.
            outcome = control.trash(run_id) if step is None else control.delete_checkpoint(run_id, step, force=True)
            total += size if outcome else 0
            what = "" if step is None else msg("checkpoint of step {step} ", step=step)
            outcomes.append((outcome, msg("{what}in the trash ({size})", what=what, size=bytes_text(size))))
    if not options.json and total:
        print(
            msg(
                "{total} moved to the trash; `finetop restore` takes them back, `finetop rm --purge` deletes",
                total=bytes_text(total),
            ),
            file=sys.stderr,
        )
    return print_outcomes(outcomes, options.json)


def _purge(options: argparse.Namespace, workspace: Workspace, conn: Connection) -> int:
    """Delete for good: what is named (moved to the trash first), or all that lies there."""
    lying = {(entry.run_id, entry.step) for entry in trash.contents(conn, workspace)}
    if options.runs or options.filter is not None:
        chosen = _chosen(options, conn, workspace, trashed=options.filter is not None)
    else:
        # Checkpoints first: a run takes those it has there along.
        chosen = sorted(lying, key=lambda named: (named[1] is None, named[0], named[1] or 0))
        if not chosen:
            print("the trash is empty", file=sys.stderr)
            return 0
    sizes = {
        named: folder_bytes(trash.place(workspace, *named) if named in lying else _folder(workspace, *named))
        for named in chosen
    }
    question = msg("Delete {what} for good ({size})?", what=_amount(chosen), size=bytes_text(sum(sizes.values())))
    if not options.yes and not agreed(question):
        return 1
    outcomes = []
    with open_control(workspace) as control:
        for run_id, step in chosen:
            outcome = Outcome(True, run_id)
            if (run_id, step) not in lying:
                outcome = control.trash(run_id) if step is None else control.delete_checkpoint(run_id, step, force=True)
            if outcome:
                outcome = control.purge(run_id) if step is None else control.purge_checkpoint(run_id, step)
            what = "" if step is None else msg("checkpoint of step {step} ", step=step)
            outcomes.append((outcome, msg("{what}deleted ({size})", what=what, size=bytes_text(sizes[run_id, step]))))
    return print_outcomes(outcomes, options.json)


def run_restore(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    outcomes = []
    with open_control(workspace) as control:
        for run_id, step in _chosen(options, conn, workspace, trashed=True):
            if step is not None:
                outcome = control.restore_checkpoint(run_id, step)
                outcomes.append((outcome, msg("checkpoint of step {step} is back", step=step)))
                continue
            outcome = control.restore(run_id)
            held = outcome.state is RunState.QUEUED
            outcomes.append(
                (outcome, "back, held: `finetop release` lets it start" if held else f"back, {outcome.state}")
            )
    return print_outcomes(outcomes, options.json)


def run_trash(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    trashed = trash.contents(open_store(workspace), workspace)
    sizes = [folder_bytes(entry.path) for entry in trashed]
    if options.json:
        print_json(
            [
                {"name": entry.label, "run": entry.run_id, "step": entry.step, "deleted": entry.deleted, "bytes": size}
                for entry, size in zip(trashed, sizes, strict=True)
            ]
        )
        return 0
    if not trashed:
        print("the trash is empty", file=sys.stderr)
        return 0
    rows = [
        [entry.label, entry.name, bytes_text(size), ago(entry.deleted)]
        for entry, size in zip(trashed, sizes, strict=True)
    ]
    columns = [Column("id"), Column("name", least=_NAME), Column("size", right=True), Column("deleted", right=True)]
    print("\n".join(table(columns, rows, output_width())))
    print(
        msg(
            "{total} in all; `finetop restore ID` takes something back, `finetop rm --purge` deletes it all. Where the"
            " disk is full, the daemon deletes what has lain there longest.",
            total=bytes_text(sum(sizes)),
        ),
        file=sys.stderr,
    )
    return 0


def _chosen(options: argparse.Namespace, conn: Connection, workspace: Workspace, trashed: bool = False) -> list[Chosen]:
    """What was named, each once: runs, and checkpoints by their step in the trash, by any name elsewhere."""
    if options.filter is not None or not options.runs:
        return [(run_id, None) for run_id in chosen_runs(options, conn, trashed=trashed)]
    chosen: dict[Chosen, None] = {}
    for word in options.runs:
        if "@" not in word:
            ids = chosen_runs(argparse.Namespace(runs=[word]), conn, trashed=trashed)
            chosen |= dict.fromkeys((run_id, None) for run_id in ids)
            continue
        run_id, point = parse_checkpoint_name(word)
        find_run(conn, run_id)
        if trashed or (options.purge and point.isdecimal() and trash.place(workspace, run_id, int(point)).is_dir()):
            if not point.isdecimal():
                raise InputError(msg("{word} is not in the trash", word=word), "`finetop trash` lists what is.")
            chosen[run_id, int(point)] = None
        else:
            chosen[run_id, step_of(checkpoint_folder(workspace.run_folder(run_id), point))] = None
    return list(chosen)


def _folder(workspace: Workspace, run_id: int, step: int | None) -> Path:
    """Of what does not lie in the trash."""
    folder = workspace.runs / str(run_id)
    return folder if step is None else path_of(folder / CHECKPOINTS, step)


def _amount(chosen: Sequence[Chosen]) -> str:
    runs = sum(step is None for _, step in chosen)
    points = len(chosen) - runs
    parts = [msg_n("{n:,} run", "{n:,} runs", runs)] if runs else []
    return " and ".join([*parts, msg_n("{n:,} checkpoint", "{n:,} checkpoints", points)] if points else parts)
