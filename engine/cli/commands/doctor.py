"""`finetop doctor`: what finetop would run on, why something would not work, and what to do."""

import argparse
import dataclasses
from collections.abc import Callable

from engine.base.messages import msg
from engine.base.workspace import Workspace, find_workspace
from engine.cli import machine_checks, workspace_checks
from engine.cli.finding import Finding, Said, counted
from engine.present.text import one_line, output_width, print_json, wrap

_EXAMPLES = "examples:\n  finetop doctor\n  finetop doctor --json | jq '.[] | select(.verdict != \"ok\")'\n"
_MARKS = {"ok": " ", "note": "!", "bad": "✖"}


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "doctor",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    findings: list[Finding] = []
    for area, look in _AREAS.items():
        try:
            findings += [Finding(area, *said) for said in look(workspace)]
        except Exception as error:  # one look that fails must not hide the others
            findings.append(
                Finding(
                    area, msg("cannot be looked at: {name}: {error}", name=type(error).__name__, error=error), "note"
                )
            )
    bad = sum(finding.verdict == "bad" for finding in findings)
    if options.json:
        print_json([dataclasses.asdict(finding) for finding in findings])
        return 1 if bad else 0
    area, width = "", output_width()
    for finding in findings:
        if finding.area != area:
            print(("\n" if area else "") + finding.area)
            area = finding.area
        for line in wrap(one_line(f"{_MARKS[finding.verdict]} {finding.what}"), width, indent="  "):
            print(line)
        for line in wrap(one_line(finding.hint), width, "    ", "    ") if finding.hint else ():
            print(line)
    notes = sum(finding.verdict == "note" for finding in findings)
    print(
        msg("\n{bad} will not work, {notes} to know", bad=counted(bad, "thing"), notes=counted(notes, "thing"))
        if bad or notes
        else "\nall well"
    )
    return 1 if bad else 0


_AREAS: dict[str, Callable[[Workspace], Said]] = {
    "programs": machine_checks.programs,
    "GPU": machine_checks.gpus,
    "limits": machine_checks.limits,
    "workspace": workspace_checks.folder,
    "store": workspace_checks.store,
    "daemon": workspace_checks.daemon,
    "notify": workspace_checks.notify,
    "terminal": machine_checks.terminal,
}
