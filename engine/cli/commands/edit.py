"""`finetop edit`: another name, tags or a note for runs."""

import argparse

from engine.base.errors import InputError
from engine.base.workspace import find_workspace
from engine.cli.run_args import add_runs_argument, chosen_runs, open_control, open_store, print_outcomes
from engine.control import Control
from engine.store.run_records import Outcome

_EPILOG = """examples:
  finetop edit 41 --name baseline
  finetop edit 40-45 --tag sql --tag paper
  finetop edit 41 --note "loss spikes at 1,200: bad rows"
  finetop edit 41 --tag ""
"""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "edit",
        description="Changes what runs are called. Waiting, running and finished runs alike; nothing else changes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    add_runs_argument(parser, "runs to edit")
    parser.add_argument("--name", help="another name, of one run")
    parser.add_argument("--tag", action="append", metavar="TAG", help="a tag; repeat it; these replace all, '' none")
    parser.add_argument("--note", metavar="TEXT", help="a note; '' removes it")
    parser.add_argument("--json", action="store_true", help="print what became of each as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.name is None and options.tag is None and options.note is None:
        raise InputError("there is nothing to change", "finetop edit 41 --name NAME, --tag TAG or --note TEXT")
    workspace = find_workspace(options.workspace)
    ids = chosen_runs(options, open_store(workspace))
    if options.name is not None and len(ids) > 1:
        raise InputError("one name is for one run", "Several runs can share tags: --tag TAG")
    with open_control(workspace) as control:
        outcomes = [_edit(control, run_id, options) for run_id in ids]
    return print_outcomes(outcomes, options.json)


def _edit(control: Control, run_id: int, options: argparse.Namespace) -> tuple[Outcome, str]:
    """The changes one after the other, up to the first that is refused; what was done in words."""
    outcome = Outcome(True, run_id)
    done: list[str] = []
    if options.name is not None:
        outcome = control.rename(run_id, options.name)
        done.append(f"is called {options.name.strip()}")
    if options.tag is not None and outcome:
        tags = list(dict.fromkeys(" ".join(options.tag).replace(",", " ").split()))
        outcome = control.tag(run_id, tags)
        done.append(f"tagged {' '.join(tags)}" if tags else "has no tags")
    if options.note is not None and outcome:
        outcome = control.note(run_id, options.note)
        done.append("has a note" if options.note else "has no note")
    return outcome, ", ".join(done)
