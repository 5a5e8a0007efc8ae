"""`finetop logs`: what a run's worker printed, or the events of its journal."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine import journal
from engine.cli.look import state_word
from engine.cli.stored import find_run, open_store, run_number, run_place
from engine.cli.text import clock, cut, output_width, visible
from engine.errors import InputError
from engine.home import LOG, find_workspace
from engine.process import worker_alive
from engine.store import reads
from engine.store.connect import Connection
from engine.store.records import RunState

_EXAMPLES = "examples:\n  finetop logs 41 -f\n  finetop logs 41 --events\n"
_POLL_SECONDS = 0.2
_BLOCK = 1 << 16
PIECE = 4_000
"""Characters of one line that are shown: a log may hold a megabyte without a line break."""
_QUIET = frozenset({"beat", "metric"})


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    logs = commands.add_parser(
        "logs", help="what a run's worker printed", epilog=_EXAMPLES, formatter_class=style, parents=[common]
    )
    logs.add_argument("id", metavar="ID", type=run_number, help="the run")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    logs.add_argument("-n", "--lines", type=int, default=200, metavar="N", help="the last N lines (0: all)")
    logs.add_argument("--events", action="store_true", help="the events of its journal instead of what it printed")
    logs.add_argument("--json", action="store_true", help="with --events: one JSON object a line")
    logs.set_defaults(run=run_logs)


def run_logs(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    run = find_run(conn, options.id)
    folder = run_place(workspace, run)
    if options.lines < 0:
        raise InputError("--lines takes a number from 0 on")
    if options.json and not options.events:
        raise InputError("a log is text; --json is for --events")
    if options.events:
        return _print_events(folder, options)
    path = folder / LOG
    if not path.exists() and not options.follow:
        state = state_word(run)
        print(f"run {run.id} ({state}) has printed nothing yet", file=sys.stderr)
        return 0
    for line in tail(path, options.lines):
        print(_log_line(line))
    offset = path.stat().st_size if path.exists() else 0
    if options.follow:
        if run.state is RunState.QUEUED:
            why = f": {run.wait_reason}" if run.wait_reason and not run.held else ""
            print(visible(f"run {run.id} ({state_word(run)}{why}) has not started; Ctrl-C leaves"), file=sys.stderr)
        for line in _new_lines(conn, run.id, path, offset):
            print(_log_line(line), flush=True)
    return 0


def _log_line(line: str) -> str:
    """What stands after the last carriage return is what a terminal would have been left with."""
    return visible(line.rstrip("\r").rsplit("\r", 1)[-1][:PIECE].expandtabs())


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file, read from its end; 0: all of them."""
    try:
        with open(path, "rb") as file:
            position = file.seek(0, 2)
            data = b""
            while position and (lines == 0 or data.count(b"\n") <= lines):
                step = min(_BLOCK, position)
                position -= step
                file.seek(position)
                data = file.read(step) + data
    except OSError:
        return []
    found = data.decode("utf-8", "replace").removesuffix("\n").split("\n") if data else []
    return found[-lines:] if lines else found


def _new_lines(conn: Connection, run_id: int, path: Path, offset: int) -> Iterator[str]:
    """Lines as they come, until the run has ended and its worker is gone."""
    rest = b""
    while True:
        run = reads.run(conn, run_id)
        over = run is None or (not run.active and run.state is not RunState.QUEUED and not worker_alive(path.parent))
        try:
            with open(path, "rb") as file:
                if file.seek(0, 2) < offset:
                    offset = 0  # the log was cut short
                file.seek(offset)
                data = file.read()
        except OSError:
            data = b""
        offset += len(data)
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")
        if over:
            if rest:
                yield rest.decode("utf-8", "replace")
            return
        time.sleep(_POLL_SECONDS)


def _print_events(folder: Path, options: argparse.Namespace) -> int:
    events, offset = journal.read(folder)
    told = [event for event in events if event["kind"] not in _QUIET]
    for event in told[-options.lines :] if options.lines else told:
        _print_event(event, options.json)
    while options.follow and worker_alive(folder):
        events, offset = journal.read(folder, offset)
        for event in events:
            if event["kind"] not in _QUIET:
                _print_event(event, options.json)
        sys.stdout.flush()
        time.sleep(_POLL_SECONDS)
    return 0


def _print_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(event, ensure_ascii=False))
        return
    kind, rest = event["kind"], {key: value for key, value in event.items() if key not in ("t", "kind", "step")}
    step = f"step {event['step']:,}  " if isinstance(event.get("step"), int) else ""
    message = rest.pop("message", "") if kind == "event" else ""
    name = rest.pop("event", kind) if kind == "event" else kind
    detail = message or ", ".join(f"{key} {_short(value)}" for key, value in rest.items())
    print(cut(visible(f"{clock(event['t'])}  {name:<12}  {step}{detail}".replace("\n", " ")), output_width()))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 120)
