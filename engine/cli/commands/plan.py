"""`finetop plan`: what would run, what it would need, how long it would take and what it would cost."""

import argparse

from engine.cli.settings_flags import add_setting_flags

_EXAMPLES = """\
examples:
  finetop plan --preset standard --data-file chats.jsonl
  finetop plan --preset qwen2.5-7b-qlora --data-file chats.jsonl --price-kwh 0.30 --trace
"""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "plan",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    add_setting_flags(parser)
    parser.add_argument("--resume", nargs="?", const="", metavar="ID[@CKPT]", help="the plan of a run that is there")
    add_plan_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(run=run)


def add_plan_flags(parser: argparse.ArgumentParser) -> None:
    """What plan takes beside the settings; `train --dry-run` takes the same."""
    group = parser.add_argument_group("the plan")
    group.add_argument("--all", action="store_true", help="every setting, those at their default, too")
    group.add_argument("--show", type=int, default=0, metavar="N", help="N examples as trained on")
    group.add_argument(
        "--trace", action="store_true", help="exact memory: one step of the real model without its weights, some 10 s"
    )
    group.add_argument("--probe", action="store_true", help="measure the speed: a few real steps, which load the model")
    group.add_argument("--price-kwh", type=float, metavar="PRICE", help="what a kilowatt-hour costs you")


def run(options: argparse.Namespace) -> int:
    from engine.cli.commands.plan_run import run_plan  # 50 ms, which --help need not pay

    return run_plan(options)
