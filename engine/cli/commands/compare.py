"""`finetop compare`: runs and checkpoints side by side."""

import argparse
import sys
from pathlib import Path

from engine.base.atomic_files import atomic_write
from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import find_workspace
from engine.compare.comparison_records import Comparison
from engine.present import comparison_report
from engine.present.text import output_width, print_json

_ANSWERS = 3
"""Prompts printed unless more are asked for."""
_EPILOG = """examples:
  finetop compare 41 40
  finetop compare 41@best 41@latest 40@1200 --answers 10
  finetop compare 41 40 39 --markdown > comparison.md
  finetop compare 41 40 --plot curves.svg --x tokens
"""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "compare",
        parents=[common],
        description="Compares runs (41), checkpoints (41@best) and evaluations, finished or not. The first is the "
        "baseline. Where predictions were kept, says how sure each difference is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subjects", nargs="+", metavar="RUN[@CKPT]", help="two to eight runs, checkpoints or folders")
    parser.add_argument("--x", choices=("step", "tokens", "time"), default="step", help="x axis of the curves")
    parser.add_argument("--answers", type=_count, default=_ANSWERS, metavar="N", help="how many prompts to show")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves: .svg, or .png where matplotlib is installed")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything, unrounded")
    form.add_argument("--markdown", action="store_true", help="tables to paste into a page")
    form.add_argument("--csv", action="store_true", help="one value a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from engine.compare.comparison import compare  # opens sqlite3: 10 ms that --help need not pay
    from engine.compare.significance import with_evidence

    plot = Path(options.plot) if options.plot else None
    if plot and plot.suffix.lower() not in (".svg", ".png"):
        raise InputError(
            msg("--plot {plot_name}: draws .svg or .png", plot_name=plot.name[:80]), "Give a file that ends so."
        )
    columns = 400 if plot else 120
    workspace = find_workspace(options.workspace)
    comparison = with_evidence(
        compare(workspace, options.subjects, x=options.x, columns=columns, answers=options.answers)
    )
    if plot:
        _draw(comparison, plot)
    if options.json:
        print_json(comparison_report.json_value(comparison))
    elif options.markdown:
        sys.stdout.write(comparison_report.markdown(comparison, options.answers))
    elif options.csv:
        sys.stdout.write(comparison_report.csv_text(comparison))
    else:
        print("\n".join(comparison_report.lines(comparison, _width())))
    return 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(msg("{text!r} is not a whole number", text=text))
    return int(text)


def _width() -> int:
    """The terminal's, from 80 to 120 cells; 80 where there is none."""
    return min(max(output_width(narrowest := comparison_report.WIDTH), narrowest), 120)


def _draw(comparison: Comparison, path: Path) -> None:
    from engine.compare import svg

    if path.suffix.lower() == ".png":
        try:
            content = svg.png(comparison)
        except ImportError:
            raise InputError(
                "a .png is drawn by matplotlib, which is not installed",
                msg(
                    "pip install matplotlib, or --plot {with_suffix}, which needs nothing.",
                    with_suffix=path.with_suffix(".svg"),
                ),
            ) from None
    else:
        content = svg.svg(comparison).encode()
    try:
        atomic_write(path, content, mode=0o666)
    except OSError as error:
        raise InputError(msg("{path} cannot be written: {strerror}", path=path, strerror=error.strerror)) from None
    print(f"drawn: {path}", file=sys.stderr)
