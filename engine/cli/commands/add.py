"""`finetop add` and `finetop sweep`: into the queue."""

import argparse
import contextlib
import itertools
import json
import sys

from engine.base.errors import ConfigError, InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace, find_workspace
from engine.cli.run_args import find_run, open_control, open_store, parse_ids, run_number
from engine.cli.settings_flags import (
    add_setting_flags,
    given_layers,
    resolve_settings,
    save_config,
    tell_findings,
    with_sample,
)
from engine.present.text import print_json, visible
from engine.settings import sweep
from engine.settings.resolve import Resolved, resolve

_ADD_EXAMPLES = """\
examples:
  finetop add --preset quick --data-file chats.jsonl
  finetop add --model Qwen/Qwen2.5-7B-Instruct --method qlora --data-file rows.csv --after 41 --set run.retries=2
  finetop add --like 41 --fix 1
"""
_SWEEP_EXAMPLES = """\
examples:
  finetop sweep --data-file rows.csv --grid learning_rate=1e-4,5e-5 --grid lora.r=8,16
  finetop sweep --data-file rows.csv --random 20 --grid optim.learning_rate=1e-5..1e-3:log --grid lora.r=4..64:log
"""


def add_parsers(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    add = commands.add_parser(
        "add",
        description="Queues a run with the settings and the data of this moment, and prints its id.",
        epilog=_ADD_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    add_setting_flags(add)
    add.add_argument("--like", metavar="ID", type=run_number, help="with the settings of that run; flags beat them")
    add.add_argument(
        "--fix",
        metavar="N[,N]",
        type=_numbers,
        help="and with fixes of that failed run, as `finetop show ID` numbers them",
    )
    add.set_defaults(run=run_add)
    group = commands.add_parser(
        "sweep",
        description="Queues every combination of the values given by --grid, or so many drawn from them.",
        epilog=_SWEEP_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    add_setting_flags(group)
    group.add_argument(
        "--grid",
        metavar="KEY=VALUES",
        action="append",
        default=[],
        help="a setting and its values: 1e-4,5e-5; with --random also a range: 1e-5..1e-3, or 1e-5..1e-3:log",
    )
    group.add_argument("--random", type=int, metavar="N", help="draw N combinations (repeated by the same --seed)")
    group.add_argument("--group", metavar="NAME", help="name of the group (default: sweep-1, sweep-2, ...)")
    group.add_argument("--dry-run", action="store_true", help="list the runs and queue nothing")
    group.set_defaults(run=run_sweep)
    for parser in (add, group):
        parser.add_argument("--after", metavar="ID", action="append", default=[], help="start when that run is done")
        parser.add_argument("--hold", action="store_true", help="wait until released (`finetop release`)")
        parser.add_argument("--json", action="store_true", help="print ids and folders as JSON")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(msg("numbers with commas, and not '{text}'", text=text[:40])) from None


def run_add(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    if options.fix is not None and options.like is None:
        raise InputError("--fix takes a failed run", "Name it: finetop add --like ID --fix N.")
    resolved = resolve_settings(options) if options.like is None else _like(options, workspace)
    with open_control(workspace) as control:
        run_id = control.add(resolved, after=parse_ids(options.after), held=options.hold)
    tell_findings(resolved)
    if options.json:
        print(json.dumps({"run": run_id, "folder": str(workspace.runs / str(run_id))}))
    else:
        print(run_id)
    return 0


def _like(options: argparse.Namespace, workspace: Workspace) -> Resolved:
    """The settings of an earlier run, of a failed one with a fix, under the flags. Raises InputError or ConfigError."""
    from engine.plan.fixes import chosen_fix, fixed, fixes_of, settings_like  # 20 ms, which --help need not pay

    with contextlib.closing(open_store(workspace)) as conn:
        run = find_run(conn, options.like)
        folder = workspace.place(run.id, run.trashed is not None)
        layers = given_layers(options)
        if options.fix is None:
            resolved = settings_like(folder, layers)
        else:
            resolved = fixed(folder, chosen_fix(fixes_of(conn, run, folder), options.fix, run.id), layers)
    if options.save_config:
        save_config(options.save_config, resolved)
    return resolved


def run_sweep(options: argparse.Namespace) -> int:
    varied = [sweep.parse_varied(text) for text in options.grid]
    paths = [setting.path for setting in varied]
    if not varied:
        raise InputError("nothing varies", "Give settings and values: --grid learning_rate=1e-4,5e-5")
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise InputError(
            msg("{twice} is given twice", twice=twice), "All its values belong in one --grid, separated by commas."
        )
    if options.save_config:
        raise InputError("--save-config writes one run, and a sweep has many", "Leave it out.")
    layers, problems = given_layers(options), []
    try:
        layers = layers if "data.files" in paths else with_sample(layers)
        seed = resolve(layers).config.train.seed
    except ConfigError as error:  # reported together with what is wrong in the values that vary
        seed, problems = 0, error.problems
    combinations = sweep.grid(varied) if options.random is None else sweep.draw(varied, options.random, seed)
    workspace = find_workspace(options.workspace)
    with open_control(workspace) as control:
        group = options.group or getattr(options, "run.name") or _free_name(control.groups())
        try:
            resolved = sweep.runs(layers, combinations, "--grid" if options.random is None else "--random")
        except ConfigError as error:
            raise ConfigError(list(dict.fromkeys([*problems, *error.problems])), error.hint) from None
        ids: list[int | None] = [None] * len(resolved)
        if not options.dry_run:
            ids = list(control.add_all(resolved, after=parse_ids(options.after), held=options.hold, sweep=group))
    if options.json:
        named = [
            {"run": run_id, "name": settings.config.run.name, "settings": combination}
            for run_id, settings, combination in zip(ids, resolved, combinations, strict=True)
        ]
        print_json({"group": group, "runs": named})
        return 0
    for run_id, settings in zip(ids, resolved, strict=True):
        name = settings.config.run.name
        print(visible(name if run_id is None else f"{run_id}  {name}"))
    queued = "would be queued" if options.dry_run else "queued"
    print(
        visible(msg("{runs:,} runs {queued} as '{group}'", runs=len(ids), queued=queued, group=group)),
        file=sys.stderr,
    )
    return 0


def _free_name(taken: set[str]) -> str:
    return next(name for number in itertools.count(1) if (name := f"sweep-{number}") not in taken)
