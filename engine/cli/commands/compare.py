"""`finetop compare`: runs and checkpoints side by side."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.base.atomic_files import atomic_write
from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import find_workspace
from engine.compare.comparison_records import Comparison
from engine.present import comparison_report
from engine.present.text import cells, cut, fit, one_line, output_width, print_json, wrap

WIDTH = 80
_COLUMNS_AT_ONCE = 4
_ANSWERS = 3
"""Prompts printed unless more are asked for."""
_ANSWER_LINES = 4
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
        print("\n".join(lines(comparison, _width())))
    return 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(msg("{text!r} is not a whole number", text=text))
    return int(text)


def _width() -> int:
    """The terminal's, from 80 to 120 cells; 80 where there is none."""
    return min(max(output_width(WIDTH), WIDTH), 120)


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


# the page: pure, from a comparison to lines


def lines(comparison: Comparison, width: int = WIDTH) -> list[str]:
    """What is printed, each line at most `width` cells."""
    found = []
    asked = max(cells(one_line(subject.asked)) for subject in comparison.subjects)
    for subject in comparison.subjects:
        name = fit(one_line(subject.asked), min(asked, 30))
        found.append(
            cut(f"{subject.letter}  {name}  {one_line(comparison_report.subject_text(subject))}", width).rstrip()
        )
    for section in comparison_report.sections(comparison):
        found.append("")
        found += _table(section, width) if section.rows else [one_line(section.title)]
        for line in section.lines:
            found += wrap(one_line(line), width, "  ", "    ")
    if comparison.answers:
        found += ["", "answers"]
        for answer in comparison.answers:
            found += _answer(comparison, answer.prompt, answer.reference, answer.texts, width)
    return found


def _table(section: comparison_report.Section, width: int) -> list[str]:
    """The section's table, in blocks of four columns where there are more."""
    found = []
    names = [one_line(row[0]) for row in section.rows]
    for start in range(0, len(section.head), _COLUMNS_AT_ONCE):
        block = slice(1 + start, 1 + start + _COLUMNS_AT_ONCE)
        head = section.head[start : start + _COLUMNS_AT_ONCE]
        grid = [[one_line(cell) for cell in row[block]] for row in section.rows]
        name_width = min(max(map(cells, [*names, ""])) + 2, width // 2)
        room = (width - name_width) // max(1, len(head)) - 2
        widths = [
            min(max(cells(head[column]), *(cells(row[column]) for row in grid), 8), room) for column in range(len(head))
        ]
        title = one_line(section.title) if not start else ""
        left = width - sum(widths) - 2 * len(widths)
        if cells(title) > name_width:  # a long title does not fit above the names: it stands on a line of its own
            name_width = min(max(name_width, cells(title)), left)
        if cells(title) > name_width:
            found.append(cut(title, width))
            title = ""
        found.append(_line(title, head, name_width, widths))
        found += [_line(f"  {name}", row, name_width, widths) for name, row in zip(names, grid, strict=True)]
    return found


def _line(name: str, row: Sequence[str], name_width: int, widths: Sequence[int]) -> str:
    return (
        fit(name, name_width) + "".join("  " + fit(cell, w, ">") for cell, w in zip(row, widths, strict=True))
    ).rstrip()


def _answer(
    comparison: Comparison, prompt: str, reference: str | None, texts: Sequence[str | None], width: int
) -> list[str]:
    found = _paragraph("  > ", prompt, width)
    if reference is not None:
        found += _paragraph("    reference: ", reference, width)
    for subject, text in zip(comparison.subjects, texts, strict=True):
        found += _paragraph(f"    {subject.letter}: ", "—" if text is None else text or "(nothing)", width)
    return found


def _paragraph(head: str, text: str, width: int) -> list[str]:
    """Text of unknown origin, wrapped and cut to a few lines."""
    rows = wrap(one_line(" ".join(text.split())), width, head, " " * len(head))
    if len(rows) > _ANSWER_LINES:
        rows = [*rows[: _ANSWER_LINES - 1], cut(rows[_ANSWER_LINES - 1] + " " * width, width)]
    return rows
