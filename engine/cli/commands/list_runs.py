"""`finetop ls` and `finetop history`: many runs at a look."""

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import find_workspace
from engine.cli.run_args import as_json, busy_seconds, open_store, unknown_hint
from engine.daemon import daemon_client
from engine.metrics.best_evaluation import LOSS, Best
from engine.metrics.names import MAIN_SCORES, score_text
from engine.present.numbers import ago, duration, metric
from engine.present.text import Column, blocks, cells, first_line, output_width, print_json, table
from engine.store import filters, queries
from engine.store.connect import Connection
from engine.store.run_records import ENDED, Run, RunState

_LS_EXAMPLES = """\
examples:
  finetop ls
  finetop ls --json | jq '.queue[] | {id, name, wait_reason}'
"""
_HISTORY_EXAMPLES = """\
examples:
  finetop history --filter 'model:qwen state:done' --sort eval
  finetop history --filter group:sweep-3 --csv > sweep.csv

A filter joins words by "and": state:failed,stopped  model:qwen  data:sql  group:sweep-3  tag:keep  id:40-60
and bare text, which is looked for in name, model, data, tags and note; ! in front turns one around: !tag:old
"""
_LEAST = 6
_NAME = 16
_BAR = 10
_SCORE = "score"
_LOSS, _BEST = "eval loss", "best eval"
_GIVE_WAY = ("group", "method", "", "step", "model", "loss", "took", "data", _SCORE, *MAIN_SCORES)
"""Columns that go first where the terminal is narrow; "" is the bar."""


def add_parsers(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    ls = commands.add_parser(
        "ls",
        description="Shows the runs at work, the queue in its order with why each waits, and what finished last.",
        epilog=_LS_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    ls.add_argument("--recent", type=int, default=5, metavar="N", help="how many of the last finished (default: 5)")
    ls.add_argument("--json", action="store_true", help="print as JSON")
    ls.set_defaults(run=run_ls)
    history = commands.add_parser(
        "history",
        epilog=_HISTORY_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    history.add_argument("--filter", metavar="TEXT", default="", help="only runs that match")
    history.add_argument("--sort", choices=sorted(filters.SORTS), help="order (default: what finished last first)")
    history.add_argument("--reverse", action="store_true", help="the other way round")
    history.add_argument("--limit", type=int, metavar="N", help="at most so many")
    history.add_argument("--all", action="store_true", help="also what waits or is at work")
    history.add_argument("--trash", action="store_true", help="what lies in the trash")
    form = history.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print as JSON")
    form.add_argument("--csv", action="store_true", help="print as CSV, figures unrounded")
    form.add_argument("--markdown", action="store_true", help="print as a Markdown table")
    history.set_defaults(run=run_history)


def run_ls(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    active, queue = queries.active(conn), queries.queue(conn)
    recent = queries.list_runs(conn, "state:ended", "finished", descending=True, limit=max(options.recent, 0))
    scores = _main_scores(conn, (*active, *recent))
    daemon = daemon_client.status(workspace).running
    if options.json:
        print_json(
            {
                "daemon": daemon,
                "active": [_row_json(run, scores) for run in active],
                "queue": [as_json(run, place=place) for place, run in enumerate(queue, 1)],
                "recent": [_row_json(run, scores) for run in recent],
            }
        )
        return 0
    width = output_width()
    after = queries.dependencies(conn)
    shown = [
        _block("running", *_with_score(_ACTIVE, map(_active_row, active), active, scores), width),
        _block("waiting", _QUEUE, [_queue_row(place, run, after) for place, run in enumerate(queue, 1)], width),
        _block("finished", *_with_score(_RECENT, map(_recent_row, recent), recent, scores), width),
    ]
    print("\n\n".join("\n".join(block) for block in shown if block) or "no runs yet: `finetop add` queues one")
    if queue and not daemon and not all(run.held for run in queue):
        print("\nNo daemon is running, so nothing starts: `finetop daemon start`", file=sys.stderr)
    _say_rest(conn, len(recent))
    return 0


_Scores = Mapping[int, tuple[str, Best]]
"""Of each run that has scores the one that says most: its name, and how it stands."""


def _main_scores(conn: Connection, runs: Iterable[Run]) -> _Scores:
    scores = queries.best_scores(conn, (run.id for run in runs), (f"eval/{name}" for name in MAIN_SCORES))
    return {
        run_id: next((name, best[key]) for name in MAIN_SCORES if (key := f"eval/{name}") in best)
        for run_id, best in scores.items()
    }


def _with_score(
    columns: Sequence[Column], rows: Iterable[list[str]], runs: Iterable[Run], scores: _Scores
) -> tuple[list[Column], list[list[str]]]:
    """A table with the runs' scores after their best. Titles name the metric where all have the same."""
    runs = list(runs)
    if any(run.best.criterion != LOSS for run in runs):
        columns = [Column(_BEST, right=True) if column.title == _LOSS else column for column in columns]
    mine = [scores.get(run.id) for run in runs]
    names = {one[0] for one in mine if one}
    if not names:
        return list(columns), list(rows)
    title = _SCORE if len(names) > 1 else next(iter(names))
    entries = [_score_entry(one, title == _SCORE) for one in mine]
    place = next(place for place, column in enumerate(columns, 1) if column.title in (_LOSS, _BEST))
    return [*columns[:place], Column(title, right=True), *columns[place:]], [
        [*row[:place], entry, *row[place:]] for row, entry in zip(rows, entries, strict=True)
    ]


def _score_entry(score: tuple[str, Best] | None, named: bool) -> str:
    if score is None:
        return ""
    name, best = score
    text = best.brief(lambda value: score_text(name, value))
    return f"{text} {name}" if text and named else text


def _row_json(run: Run, scores: _Scores) -> dict[str, Any]:
    name, best = scores.get(run.id, (None, None))
    return as_json(run, score_name=name, score=best.value if best else None)


def _best_entry(run: Run, with_step: bool = False) -> str:
    """Of a run that got worse, what it was at its start; of one judged by another metric than the loss, its name."""
    best = run.best
    text = best.brief(metric)
    if with_step and best.improved:
        text += f"@{best.step}"
    return f"{text} {best.criterion.name}" if text and best.criterion != LOSS else text


def _block(title: str, columns: list[Column], rows: list[list[str]], width: int) -> list[str]:
    return [title, *table(columns, _narrowed(columns, rows, width - 2), width, indent=2)] if rows else []


def _narrowed(columns: list[Column], rows: list[list[str]], width: int) -> list[list[str]]:
    """The rows without the columns that give way first, as many as are needed: what is cut off helps nobody."""
    titles = [column.title for column in columns]
    for title in (title for title in _GIVE_WAY if title in titles):
        needed = -2
        for column, entries in zip(columns, zip(*rows, strict=True), strict=True):
            if any(entries):
                widest = max(map(cells, (column.title, *entries)))
                needed += 2 + (widest if column.least is None else min(widest, column.least))
        if needed <= width:
            break
        place = titles.index(title)
        rows = [[*row[:place], "", *row[place + 1 :]] for row in rows]
    return rows


def _say_rest(conn: Connection, shown: int) -> None:
    counts = queries.counts(conn)
    ended = sum(counts[state] for state in ENDED)
    if interrupted := counts[RunState.INTERRUPTED]:
        print(
            msg(
                "\n{interrupted:,} interrupted: `finetop resume --interrupted` goes on with them",
                interrupted=interrupted,
            ),
            file=sys.stderr,
        )
    if ended > shown > 0:
        print(msg("\n{ended:,} have finished in all: `finetop history`", ended=ended), file=sys.stderr)


_ACTIVE = [
    Column("id", right=True),
    Column("name", least=_NAME),
    Column("state"),
    Column(""),
    Column("step", right=True),
    Column("loss", right=True),
    Column(_LOSS, right=True),
    Column("left", right=True),
    Column("on"),
]
_QUEUE = [
    Column("#", right=True),
    Column("id", right=True),
    Column("name", least=_LEAST),
    Column("group", least=_LEAST),
    Column("why it waits", least=20),
]
_RECENT = [
    Column("id", right=True),
    Column("name", least=_NAME),
    Column("state"),
    Column("step", right=True),
    Column("loss", right=True),
    Column(_LOSS, right=True),
    Column("took", right=True),
    Column("ended", right=True),
    Column("why", least=12),
]


def _active_row(run: Run) -> list[str]:
    bar = blocks(min(1.0, run.step / run.total_steps), _BAR) if run.total_steps else ""
    left = run.seconds_left
    return [
        str(run.id),
        run.name,
        state_word(run),
        bar,
        steps_text(run),
        _loss(run),
        _best_entry(run),
        "" if left is None else duration(left),
        f"GPU {','.join(run.gpus)}" if run.gpus else "",
    ]


def _queue_row(position: int, run: Run, after: Mapping[int, tuple[tuple[int, RunState | None], ...]]) -> list[str]:
    reason = "held by you" if run.held else run.wait_reason
    if not reason:  # the daemon has not looked at it yet
        waits_for = [str(other) for other, state in after.get(run.id, ()) if state is not RunState.DONE]
        reason = msg("after run {waits_for}", waits_for=", ".join(waits_for)) if waits_for else ""
    return [str(position), str(run.id), run.name, run.sweep, reason]


def _recent_row(run: Run) -> list[str]:
    return [
        str(run.id),
        run.name,
        state_word(run),
        steps_text(run),
        _loss(run),
        _best_entry(run),
        duration(took) if (took := busy_seconds(run)) else "",
        ago(run.finished),
        "" if run.state is RunState.DONE else first_line(run.reason or ""),
    ]


def run_history(options: argparse.Namespace) -> int:
    conn = open_store(find_workspace(options.workspace))
    if options.limit is not None and options.limit < 0:
        raise InputError("--limit takes a number from 0 on")
    matching = options.filter if options.all or options.trash else f"{options.filter} state:ended"
    sort, descending = options.sort or "finished", (options.sort is None) != options.reverse
    runs = queries.list_runs(conn, matching, sort, descending, trashed=options.trash, limit=options.limit)
    scores = _main_scores(conn, runs)
    if options.json:
        print_json([_row_json(run, scores) for run in runs])
        return 0
    if options.csv:
        writer = csv.DictWriter(sys.stdout, _HISTORY_CSV, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _csv_value(value) for key, value in _row_json(run, scores).items()} for run in runs)
        return 0
    columns, rows = _with_score(_HISTORY, map(_history_row, runs), runs, scores)
    if options.markdown:
        print(f"| {' | '.join(column.title for column in columns)} |")
        print("|" + "|".join("---:" if column.right else "---" for column in columns) + "|")
        for row in rows:
            print(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    elif runs:
        width = output_width()
        print("\n".join(table(columns, _narrowed(columns, rows, width), width)))
    else:
        print(_nothing(options), file=sys.stderr)
    return 0


def _nothing(options: argparse.Namespace) -> str:
    if options.filter:
        return "\n".join(filter(None, ("no run matches", unknown_hint(options.filter))))
    if options.trash:
        return "the trash is empty"
    return "no runs yet" if options.all else "no run has finished yet: `finetop ls` shows what runs and what waits"


_HISTORY = [
    Column("id", right=True),
    Column("name", least=_NAME),
    Column("group", least=_LEAST),
    Column("state"),
    Column("model", least=_LEAST),
    Column("data", least=_LEAST),
    Column("method"),
    Column("step", right=True),
    Column("loss", right=True),
    Column(_LOSS, right=True),
    Column("took", right=True),
    Column("ended", right=True),
]
_HISTORY_CSV = (
    "id", "name", "state", "sweep", "model", "data", "method", "objective", "preset", "tags", "step",
    "total_steps", "epoch", "train_loss", "eval_loss", "best_eval", "best_eval_step", "created", "started",
    "finished", "seconds", "parent_run", "parent_step", "reason", "score_name", "score",
    "best_by", "start_eval", "improved",
)  # fmt: skip


def _history_row(run: Run) -> list[str]:
    return [
        str(run.id),
        run.name,
        run.sweep,
        state_word(run),
        run.model.rstrip("/").rsplit("/", 1)[-1],
        run.data,
        run.method,
        steps_text(run),
        _loss(run),
        _best_entry(run, with_step=True),
        duration(took) if (took := busy_seconds(run)) else "",
        ago(run.finished),
    ]


def _csv_value(value: Any) -> Any:
    return " ".join(value) if isinstance(value, tuple) else value


# shared with `show`


def state_word(run: Run) -> str:
    """What a person calls the run's state: a waiting run may be held, an active one asked to stop."""
    if run.state is RunState.QUEUED and run.held:
        return "held"
    if run.active and run.wanted:
        return "being killed" if run.wanted == "kill" else "stopping"
    return run.state.value


def steps_text(run: Run) -> str:
    if run.total_steps:
        return f"{run.step:,}/{run.total_steps:,}"
    return f"{run.step:,}" if run.step else ""


def _loss(run: Run) -> str:
    return msg("NaN since {step:,}", step=run.nan_since) if run.nan_since is not None else _known(run.train_loss)


def _known(value: float | None) -> str:
    return "" if value is None else metric(value)
