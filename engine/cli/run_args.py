"""Reading the store for a command, and the runs a command names."""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.units import duration
from engine.base.workspace import Workspace, parse_checkpoint_name
from engine.daemon import daemon_client
from engine.present.text import print_json, visible
from engine.runs.checkpoints import checkpoint_folder
from engine.store import queries
from engine.store.connect import Connection, reader, writer
from engine.store.discover import import_unknown, unknown_runs
from engine.store.filters import WORDS, unknown_words
from engine.store.journal_import import import_journal
from engine.store.run_records import Outcome, Run
from engine.store.store_errors import StoreMissing, StoreOlder
from engine.store.transactions import BUSY_SECONDS

if TYPE_CHECKING:
    from engine.control import Control

RANGE_LIMIT = 1_000_000
_LONGEST_ID = 18
"""Digits: SQLite holds no longer ones."""


def open_store(workspace: Workspace) -> Connection:
    """A read-only connection to what is known now.

    Runs the store does not know yet are taken in, and where no daemon reads the journals of runs at work, this does.
    Somebody else's workspace, which may only be read, is shown as the store has it.
    """
    if not workspace.database.exists():
        if not workspace.run_ids():
            raise StoreMissing(
                msg("there are no runs in {root}", root=workspace.root),
                "`finetop add` queues one; another folder: --workspace DIR.",
            )
        writer(workspace.database, on_wait=on_db_busy).close()
    try:
        conn = reader(workspace.database)
    except StoreOlder:
        writer(workspace.database, on_wait=on_db_busy).close()
        conn = reader(workspace.database)
    stale = [run.id for run in queries.active(conn)] if not daemon_client.status(workspace).running else []
    if stale or unknown_runs(conn, workspace):
        with contextlib.suppress(EngineError), contextlib.closing(writer(workspace.database, busy_seconds=2)) as write:
            import_unknown(write, workspace)
            for run_id in stale:
                import_journal(write, run_id, workspace.runs / str(run_id))
    return conn


@contextlib.contextmanager
def open_control(workspace: Workspace, patience_seconds: float = BUSY_SECONDS) -> Iterator["Control"]:
    """For a command that changes runs; says so where it has to wait, and where no daemon could be started to act."""
    from engine.control import Control  # 20 ms that commands which only look need not spend

    with Control(workspace, busy_seconds=patience_seconds, on_wait=on_db_busy) as control:
        yield control
        if control.warning:
            print(visible(f"finetop: {control.warning}"), file=sys.stderr)


def on_db_busy(seconds: float) -> None:
    """That a command which writes is held up, and for how long at most."""
    text = msg("finetop: runs.db is locked by another program; waiting for it, up to {limit}", limit=duration(seconds))
    print(text, file=sys.stderr, flush=True)


def find_run(conn: Connection, run_id: int) -> Run:
    run = queries.run(conn, run_id)
    if run is None:
        newest = max((run.id for run in queries.list_runs(conn)), default=None)
        newest_text = msg("the newest is {newest}", newest=newest) if newest else "there are none yet"
        raise InputError(
            msg("there is no run {run_id}; {newest_text}", run_id=run_id, newest_text=newest_text),
            "`finetop history` lists them all.",
        )
    return run


def run_number(text: str) -> int:
    """Of `41`, `#41` or `41@best`: the type of a command's argument."""
    return parse_checkpoint_name(text.lstrip("#"))[0]


def add_runs_argument(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("runs", nargs="*", metavar="ID", help=f"{what}: 41, 40-45, or 41,43")
    parser.add_argument(
        "--filter", metavar="TEXT", help="all that match, such as 'state:failed model:qwen' (see `finetop history`)"
    )


def chosen_runs(options: argparse.Namespace, conn: Connection, trashed: bool = False) -> list[int]:
    """The ids that were named, in their order, each once. In a range, only those that there are."""
    ids: dict[int, None] = {}
    for word in options.runs:
        for part in filter(None, word.split(",")):
            ids |= dict.fromkeys(_ids(part, conn, trashed))
    if getattr(options, "filter", None) is not None:
        matching = queries.list_runs(conn, options.filter, sort="id", trashed=trashed)
        ids |= dict.fromkeys(run.id for run in matching)
        if not ids:
            raise InputError(msg("no run matches '{filter}'", filter=options.filter), unknown_hint(options.filter))
    if not ids:
        raise InputError("which runs?", "Name them by their ids: 41, 40-45 or 41,43; or by --filter.")
    return list(ids)


def unknown_hint(matching: str) -> str:
    """Which words of a filter that matches nothing were taken for text, and what there is; else empty."""
    if not (words := unknown_words(matching)):
        return ""
    return msg("{words} is looked for as text: the filter has {fields}.", words=" ".join(words), fields=WORDS)


def parse_ids(words: Iterable[str]) -> list[int]:
    """Ids as they stand, without looking whether there are such runs."""
    ids: dict[int, None] = {}
    for word in words:
        for part in filter(None, word.split(",")):
            low, high = _ends(part)
            ids |= dict.fromkeys(range(low, high + 1))
    return list(ids)


def _ids(part: str, conn: Connection, trashed: bool) -> list[int]:
    low, high = _ends(part)
    if low == high:
        return [low]
    there = sorted(run.id for run in queries.list_runs(conn, f"id:{low}-{high}", trashed=trashed))
    if not there:
        raise InputError(msg("there are no runs {low} to {high}", low=low, high=high), "`finetop ls` lists them.")
    return there


def _ends(part: str) -> tuple[int, int]:
    low, dash, high = part.lstrip("#").partition("-")
    if not (low.isdecimal() and (high.isdecimal() or not dash)) or max(len(low), len(high)) > _LONGEST_ID:
        raise InputError(msg("'{part}' is no run", part=part[:60]), "Runs go by their numbers: 41, 40-45 or 41,43.")
    ends = int(low), int(high) if dash else int(low)
    if ends[0] > ends[1] or ends[1] - ends[0] > RANGE_LIMIT:
        raise InputError(msg("'{part}' is no range of runs", part=part[:60]), "The smaller number first: 40-45.")
    return ends


def as_json(run: Run, **more: Any) -> dict[str, Any]:
    """A run as a command prints it with --json: the store's fields, times in epoch seconds."""
    fields = {"seconds" if key == "busy_seconds" else key: value for key, value in run._asdict().items()}
    return {
        **fields,
        "seconds": busy_seconds(run),
        "seconds_left": run.seconds_left,
        "improved": run.best.improved,
        **more,
    }


def busy_seconds(run: Run) -> float:
    """For how long it has been at work, over all attempts."""
    if run.started is None:
        return run.busy_seconds
    end = run.finished if run.finished is not None else (time.time() if run.active else run.started)
    return run.busy_seconds + max(0.0, end - run.started)


def print_outcomes(outcomes: list[tuple[Outcome, str]], as_list: bool) -> int:
    """Say what became of each run; what was done in words is given with each. The exit code of the command."""
    failed = [outcome for outcome, _ in outcomes if not outcome]
    if as_list:
        print_json([{"run": o.run_id, "done": o.won, "state": o.state, "why": o.why} for o, _ in outcomes])
    else:
        for outcome, words in outcomes:
            if outcome:
                print(visible(f"run {outcome.run_id}: {words}"))
        for outcome in failed:
            print(visible(f"finetop: {outcome.why}"), file=sys.stderr)
    if any(outcome.state is None for outcome in failed):  # there is no such run
        return 2
    return 1 if failed else 0


def resumed(options: argparse.Namespace, workspace: Workspace) -> tuple[int, Path, str]:
    """The run and the checkpoint that --resume names: the newest of all when it names none."""
    if options.preset or options.config or options.save_config:
        raise InputError(
            "--resume goes on with the run's own settings; --preset, --config and --save-config are for a new one",
            "Its settings are in config.json in the run's folder.",
        )
    if options.resume:
        run_id, point = parse_checkpoint_name(options.resume)
    else:
        ids = workspace.run_ids()
        if not ids:
            raise InputError(
                msg("there is no run to resume in {root}", root=workspace.root),
                "Runs of another folder: --workspace DIR.",
            )
        run_id, point = ids[-1], "latest"
    folder = workspace.run_folder(run_id)
    if point != "latest":  # a run that was stopped before its first checkpoint starts again from the beginning
        checkpoint_folder(folder, point)
    return run_id, folder, point


def agreed(question: str, for_good: bool = True) -> bool:
    """Ask on a terminal. Elsewhere a command means what it says, but what is deleted for good takes a --yes."""
    if not sys.stdin.isatty():
        if for_good:
            raise InputError(msg("{question} Nobody is there to answer", question=question), "Say --yes.")
        return True
    print(visible(f"{question} [y/N] "), end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        print("nothing was done", file=sys.stderr)
        return False
    return True
