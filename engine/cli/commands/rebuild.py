"""`finetop rebuild`: runs.db again from the run folders."""

import argparse

from engine.base.messages import msg
from engine.base.workspace import find_workspace
from engine.daemon import daemon_client
from engine.present.text import print_json, visible
from engine.store.rebuild import rebuild

_EXAMPLES = "examples:\n  finetop rebuild\n  finetop rebuild --workspace ~/work --json\n"


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "rebuild",
        description="Makes a new runs.db from runs/ and the trash, for when it is lost or broken. The old one is kept. "
        "What never ran comes back held, unless the old database still says otherwise.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    with daemon_client.exclusive(workspace):
        report = rebuild(workspace.root)
    if options.json:
        print_json({"runs": report.runs, "points": report.points, "problems": report.problems, "old": report.old})
        return 1 if report.problems else 0
    print(
        msg(
            "{runs:,} runs and {points:,} points in {database}",
            runs=report.runs,
            points=report.points,
            database=workspace.database,
        )
    )
    if report.old:
        print(msg("the former database is {old}", old=report.old))
    for problem in report.problems:
        print(visible(f"! {problem}"))
    return 1 if report.problems else 0
