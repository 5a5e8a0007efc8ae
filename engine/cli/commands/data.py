"""`finetop data check | show | clean | convert | split`."""

import argparse
import dataclasses
import json
import sys
import textwrap
import time
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.cli.progress_line import LiveLine
from engine.cli.settings_flags import add_data_flags, given_layers
from engine.data.issue_types import ISSUE_TYPES, REMOVED_BY_DEFAULT
from engine.present.text import one_line, print_json, visible
from engine.settings.resolve import Layer, resolve

_CHECK_EXAMPLES = """\
examples:
  finetop data check train.csv --test-file test.csv
  finetop data check chats.jsonl --model Qwen/Qwen2.5-7B-Instruct --max-length 4096 --json
"""
_SHOW_EXAMPLES = """\
examples:
  finetop data show chats.jsonl --model Qwen/Qwen2.5-7B-Instruct
  finetop data show chats.jsonl --line 17 --model ./my-model --template mine.jinja
  finetop data show chats.jsonl --config run.json --train-on separate --set data.thinking=drop
"""
_OTHERS = [kind for kind in ISSUE_TYPES if kind not in REMOVED_BY_DEFAULT]
_CLEAN_EXAMPLES = msg(
    """\
kinds removed unless told otherwise:
{removed_by_default}
other kinds:
{other_kinds}

examples:
  finetop data clean raw.csv clean.csv --test-file test.csv
  finetop data clean raw.jsonl clean.jsonl --remove duplicates,near-duplicates,secrets,contacts
""",
    removed_by_default=textwrap.fill(
        ", ".join(REMOVED_BY_DEFAULT), 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    ),
    other_kinds=textwrap.fill(
        ", ".join(_OTHERS), 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    ),
)
_CONVERT_EXAMPLES = """\
examples:
  finetop data convert faq.csv chats.jsonl --to openai --map prompt=Frage,completion=Antwort
  finetop data convert chats.jsonl some.json --to alpaca --sample 1000 --seed 7
"""
_SPLIT_EXAMPLES = """\
examples:
  finetop data split train.csv --val 0.1
  finetop data split intents.csv --val 0.1 --test 0.1 --by-label --out-dir parts
"""
_TOLD_EVERY_SECONDS = 0.2


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    data = commands.add_parser("data", parents=[common])
    actions = data.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = actions.add_parser(
        "check",
        help="what is wrong with data files, by file and line",
        description="Exit code 1 when something serious was found.",
        epilog=_CHECK_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    check.add_argument("files", nargs="+", metavar="FILE", help="a file, a folder or a hub dataset")
    _add_reading(check)
    _add_comparing(check)
    check.add_argument("--all", action="store_true", help="print every find, not the first of each kind")
    check.set_defaults(run=_run_check)

    show = actions.add_parser(
        "show",
        help="what is trained of each row, turn by turn, and how the model is asked",
        epilog=_SHOW_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    show.add_argument("files", nargs="+", metavar="FILE", help="a file, a folder or a hub dataset")
    which = show.add_mutually_exclusive_group()
    which.add_argument("--rows", type=int, default=3, metavar="N", help="the first N rows (default 3)")
    which.add_argument("--line", type=int, default=0, metavar="N", help="the row that starts on line N")
    add_data_flags(show)
    show.set_defaults(run=_run_show)

    clean = actions.add_parser(
        "clean",
        help="write the rows without serious finds to OUT, the others to OUT.removed.jsonl",
        epilog=_CLEAN_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    clean.add_argument("file", metavar="FILE")
    clean.add_argument("out", metavar="OUT")
    clean.add_argument("--remove", metavar="KIND,...", help="these kinds only ('all' for every kind)")
    _add_reading(clean)
    _add_comparing(clean)
    clean.set_defaults(run=_run_clean)

    convert = actions.add_parser(
        "convert",
        help="to OpenAI chats, ShareGPT, Alpaca or documents",
        description="OUT ends in .jsonl or .json; for alpaca and text also in .csv.",
        epilog=_CONVERT_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    convert.add_argument("file", metavar="FILE", help="a file, a folder or a hub dataset")
    convert.add_argument("out", metavar="OUT")
    convert.add_argument("--to", required=True, choices=("openai", "sharegpt", "alpaca", "text"))
    convert.add_argument("--sample", type=int, default=0, metavar="N", help="N rows chosen at random, in their order")
    convert.add_argument("--seed", type=int, default=0, help="of the choice (default 0)")
    convert.add_argument("--system", metavar="TEXT", help="put before conversations that have no system message")
    convert.add_argument("--skip-bad", action="store_true", help="leave out rows that cannot be converted, and say so")
    _add_reading(convert)
    convert.set_defaults(run=_run_convert)

    split = actions.add_parser(
        "split",
        help="training, validation and test files; like questions stay on one side",
        epilog=_SPLIT_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    split.add_argument("file", metavar="FILE")
    split.add_argument("--val", type=float, default=0.0, metavar="SHARE", help="share of the rows, such as 0.1")
    split.add_argument("--test", type=float, default=0.0, metavar="SHARE")
    split.add_argument("--by-label", action="store_true", help="these shares of each label")
    split.add_argument("--seed", type=int, default=0, help="of the choice (default 0)")
    split.add_argument("--out-dir", metavar="DIR", help="where the files go (default: beside FILE)")
    _add_reading(split)
    split.set_defaults(run=_run_split)

    for parser in (clean, convert, split):
        parser.add_argument("--force", action="store_true", help="replace results that are there")
    for parser in (check, show, clean, convert, split):
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--map", metavar="ROLE=COLUMN,...", help="which column serves as what, such as prompt=ask")
    parser.add_argument("--format", default="auto", metavar="NAME", help="instead of recognising it")


def _add_comparing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--val-file", metavar="FILE", help="its questions must not be in the data")
    parser.add_argument("--test-file", metavar="FILE", help="its questions must not be in the data")
    parser.add_argument("--model", default="", metavar="NAME", help="count tokens with this model's tokenizer")
    parser.add_argument("--max-length", type=int, default=2048, metavar="N", help="tokens (default 2048)")


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    mapping = {}
    for pair in (options.map or "").split(",") if options.map else ():
        role, equals, column = pair.partition("=")
        if not equals or not role or not column:
            raise InputError(
                msg("--map {map}: '{pair}' is not ROLE=COLUMN", map=options.map, pair=pair),
                "Such as prompt=ask,completion=answer.",
            )
        mapping[role.strip()] = column
    return {"mapping": mapping or None, "format": options.format, "progress": _Progress()}


def _comparing(options: argparse.Namespace) -> dict[str, Any]:
    if options.max_length < 8:
        raise InputError(
            msg("--max-length {max_length} is less than 8", max_length=options.max_length), "2048 is usual."
        )
    return {
        "val": options.val_file,
        "test": options.test_file,
        "model": options.model,
        "max_length": options.max_length,
    }


class _Progress:
    """What is being done, on a terminal, a few times a second."""

    def __init__(self) -> None:
        self._line = LiveLine(sys.stderr)
        self._told = time.monotonic()

    def __call__(self, doing: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= _TOLD_EVERY_SECONDS:
            self._told = now
            self._line.draw(one_line(doing) + (f" {done / total:.0%}" if total > 1 else ""))

    def clear(self) -> None:
        self._line.clear()


def _cleared(work: Any, *arguments: Any, **options: Any) -> Any:
    """The work's result, with the line of progress gone whatever happens."""
    try:
        return work(*arguments, **options)
    finally:
        options["progress"].clear()


def _run_check(options: argparse.Namespace) -> int:
    from engine.data import check
    from engine.present.data_view import printed  # these two load numpy: 0.1 s

    source = options.files[0] if len(options.files) == 1 else options.files
    most = None if options.all or options.json else 5
    report = _cleared(check, source, max_finds=most, **_reading(options), **_comparing(options))
    if options.json:
        found = dataclasses.asdict(report) | {"failed": report.failed}
        print_json(found)
    else:
        print("\n".join(printed(report)))
    return 1 if report.failed else 0


def _run_show(options: argparse.Namespace) -> int:
    from engine.data import show
    from engine.present.data_view import shown_rows
    from engine.runs.run_folder import absolute, check_data, check_model

    for flag, number in (("--rows", options.rows), ("--line", options.line)):
        if number < (flag == "--rows"):
            raise InputError(
                msg("{flag} {number} is less than 1", flag=flag, number=number), "Lines and rows are counted from 1."
            )
    layers = [*given_layers(options), Layer("FILE", absolute({"data.files": options.files}))]
    config = resolve(layers).config
    check_data(config)
    check_model(config)
    rows = show(config, rows=options.rows, line=options.line)
    if options.json:
        print_json(rows)
    else:
        print("\n".join(shown_rows(rows)))
    return 0


def _run_clean(options: argparse.Namespace) -> int:
    from engine.data import clean

    remove = REMOVED_BY_DEFAULT
    if options.remove:
        remove = tuple(ISSUE_TYPES if options.remove == "all" else (kind.strip() for kind in options.remove.split(",")))
    done = _cleared(
        clean, options.file, options.out, remove=remove, force=options.force, **_reading(options), **_comparing(options)
    )
    if options.json:
        print(json.dumps(dataclasses.asdict(done), default=str))
        return 0
    print(msg("{out}: {kept:,} of {rows:,} rows", out=one_line(str(done.out)), kept=done.kept, rows=done.rows))
    if done.removed:
        print(msg("removed, with the reasons in {removed_file}:", removed_file=one_line(str(done.removed_file))))
        for kind, count in done.removed.items():
            print(f"  {count:>7,}  {kind}: {ISSUE_TYPES[kind].title}")
    else:
        print("nothing was removed")
    if done.left:
        print("left as they are (take them out with --remove):")
        for kind, count in done.left.items():
            print(f"  {count:>7,}  {kind}: {ISSUE_TYPES[kind].title}")
    return 0


def _run_convert(options: argparse.Namespace) -> int:
    from engine.data import convert

    if options.sample < 0:
        raise InputError(
            msg("--sample {sample} is less than 0", sample=options.sample), "Leave it out to convert every row."
        )
    done = _cleared(
        convert,
        options.file,
        options.out,
        options.to,
        sample=options.sample,
        seed=options.seed,
        system=options.system,
        skip_bad=options.skip_bad,
        force=options.force,
        **_reading(options),
    )
    if options.json:
        print(json.dumps(dataclasses.asdict(done), default=str))
        return 0
    print(
        msg(
            "{out}: {written:,} of {rows:,} rows, read again and the same",
            out=one_line(str(done.out)),
            written=done.written,
            rows=done.rows,
        )
    )
    for line in done.notes:
        print(f"· {visible(line)}")
    if done.skipped:
        print(msg("left out: {num_skipped:,}", num_skipped=len(done.skipped)))
        for line in done.skipped[:5]:
            print(f"  {visible(line)}")
    return 0


def _run_split(options: argparse.Namespace) -> int:
    from engine.data import split

    done = _cleared(
        split,
        options.file,
        val=options.val,
        test=options.test,
        by_label=options.by_label,
        seed=options.seed,
        folder=options.out_dir,
        force=options.force,
        **_reading(options),
    )
    if options.json:
        print(json.dumps(dataclasses.asdict(done), default=str))
        return 0
    total = sum(done.rows.values())
    for part, rows in done.rows.items():
        print(f"{part:<5} {rows:>9,} rows  {rows / total:6.1%}  {one_line(str(done.files[part]))}")
    if done.kept_together:
        print(
            msg(
                "{kept_together:,} rows have like questions and were kept on one side (up to {largest_group:,})",
                kept_together=done.kept_together,
                largest_group=done.largest_group,
            )
        )
    if done.bad_rows:
        print(
            msg(
                "{bad_rows:,} rows cannot be used and are in none of the files; see finetop data check",
                bad_rows=done.bad_rows,
            )
        )
    for note in done.notes:
        print(visible(note))
    return 0
