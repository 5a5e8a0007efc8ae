"""`finetop checkpoints`: what was saved of a run, or of all."""

import argparse
import dataclasses
import sys
from itertools import repeat
from typing import Any

from engine.base.errors import InputError
from engine.base.workspace import CHECKPOINTS, Workspace, find_workspace
from engine.cli.run_args import find_run, open_control, open_store, run_number
from engine.present.numbers import ago, bytes_text, metric
from engine.present.text import Column, output_width, print_json, table, visible
from engine.store import queries
from engine.store.run_records import Checkpoint

_EXAMPLES = """\
examples:
  finetop checkpoints 41
  finetop checkpoints 41 --pin 1200
  finetop checkpoints 41 --best macro_f1
"""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    checkpoints = commands.add_parser(
        "checkpoints",
        epilog=_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    checkpoints.add_argument("id", metavar="ID", nargs="?", type=run_number, help="the run (default: all)")
    checkpoints.add_argument("--pin", type=int, metavar="STEP", help="keep it, whatever the save. settings say")
    checkpoints.add_argument("--unpin", type=int, metavar="STEP", help="let the save. settings decide again")
    checkpoints.add_argument(
        "--best", metavar="METRIC[:max|:min]", help="let another metric say which is the best; eval.best from now on"
    )
    checkpoints.add_argument("--json", action="store_true", help="print as JSON")
    checkpoints.set_defaults(run=run_checkpoints)


def run_checkpoints(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    for step, pinned in ((options.pin, True), (options.unpin, False)):
        if step is None:
            continue
        if options.id is None:
            raise InputError("whose checkpoint?", "finetop checkpoints 41 --pin 1200")
        with open_control(workspace) as control:
            outcome = control.pin(options.id, step, pinned)
        if not outcome:
            raise InputError(outcome.why)
    if options.best is not None:
        if options.id is None:
            raise InputError("which run's best?", "finetop checkpoints 41 --best macro_f1")
        with open_control(workspace) as control:
            words = control.choose_best(options.id, options.best)
        print(visible(f"run {options.id}: {words}"), file=sys.stderr)
    if options.id is not None:
        find_run(conn, options.id)
    checkpoints = queries.checkpoints(conn, options.id)
    if options.json:
        print_json([checkpoint_json(listed, workspace) for listed in checkpoints])
    elif checkpoints:
        print("\n".join(checkpoint_table(checkpoints, workspace, output_width())))
    else:
        print("no checkpoints yet", file=sys.stderr)
    return 0


_CHECKPOINT_COLUMNS = [
    Column("checkpoint"),
    Column("names", least=8),
    Column("epoch", right=True),
    Column("eval loss", right=True),
    Column("size", right=True),
    Column("resumable"),
    Column("comes from", least=6),
    Column("made", right=True),
]


def checkpoint_table(found: tuple[Checkpoint, ...], workspace: Workspace, width: int, indent: int = 0) -> list[str]:
    rows = []
    for listed in found:
        loss = listed.eval.get("eval/loss")
        came = ""
        if listed.parent_step is not None:
            came = f"{listed.parent_run}@{listed.parent_step}"
        rows.append(
            [
                f"{listed.run_id}@{listed.step}",
                " ".join([*map(_label, listed.kept, repeat(listed.step)), *(["pinned"] if listed.pinned else [])]),
                "" if listed.epoch is None else f"{listed.epoch:.2f}",
                "" if loss is None else metric(loss),
                "" if listed.bytes is None else bytes_text(listed.bytes),
                _resumable(listed, workspace),
                came,
                ago(listed.time),
            ]
        )
    return table(_CHECKPOINT_COLUMNS, rows, width, indent)


def _label(label: str, step: int) -> str:
    """`best` is no achievement where nothing has been trained."""
    return "best-is-untrained" if label == "best" and step == 0 else label


def _resumable(listed: Checkpoint, workspace: Workspace) -> str:
    for base in (workspace.runs, workspace.trash):
        folder = base / str(listed.run_id) / (listed.path or f"{CHECKPOINTS}/step-{listed.step:08d}")
        if folder.is_dir():
            return "yes" if (folder / "training_state.pt").exists() else "weights only"
    return "gone"


def checkpoint_json(listed: Checkpoint, workspace: Workspace) -> dict[str, Any]:
    return {
        "name": f"{listed.run_id}@{listed.step}",
        **dataclasses.asdict(listed),
        "resumable": _resumable(listed, workspace) == "yes",
    }
