"""`finetop logs`: what a run's worker printed, how it goes while it is followed, or the events of its journal."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.log_tail import log_line, tail
from engine.base.messages import msg
from engine.base.worker_process import worker_alive
from engine.base.workspace import LOG, find_workspace
from engine.cli.commands.list_runs import state_word
from engine.cli.run_args import find_run, open_store, run_number
from engine.cli.watch_run import PLAIN_LINE_SECONDS, Watcher
from engine.present.numbers import clock
from engine.present.text import cut, first_line, output_width, visible
from engine.runs import journal
from engine.store import queries
from engine.store.connect import Connection
from engine.store.run_records import RunState

_EXAMPLES = "examples:\n  finetop logs 41 -f\n  finetop logs 41 --events\n"
_POLL_SECONDS = 0.2
_QUIET = frozenset({"beat", "metric"})
_UNTOLD = frozenset({"t", "kind", "step", "up", "log_bytes"})
"""Fields that are told otherwise, or tell only programs something."""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    logs = commands.add_parser(
        "logs",
        epilog=_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    logs.add_argument("id", metavar="ID", type=run_number, help="the run")
    logs.add_argument("-f", "--follow", action="store_true", help="how it goes, as in `train`, until the run ends")
    logs.add_argument("-n", "--lines", type=int, default=200, metavar="N", help="the last N lines (0: all)")
    logs.add_argument("--events", action="store_true", help="the events of its journal instead of what it printed")
    logs.add_argument("--json", action="store_true", help="with --events: one JSON object a line")
    logs.set_defaults(run=run_logs)


def run_logs(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    run = find_run(conn, options.id)
    folder = workspace.place(run.id, run.trashed is not None)
    if options.lines < 0:
        raise InputError("--lines takes a number from 0 on")
    if options.json and not options.events:
        raise InputError("a log is text; --json is for --events")
    followed = options.follow and _goes_on(conn, run.id, folder)
    if followed and run.state is RunState.QUEUED:
        why = f": {run.wait_reason}" if run.wait_reason and not run.held else ""
        print(
            visible(
                msg("run {id} ({run}{why}) has not started; Ctrl-C leaves", id=run.id, run=state_word(run), why=why)
            ),
            file=sys.stderr,
        )
    if options.events:
        return _print_events(conn, folder, options)
    path = folder / LOG
    lines = tail(path, options.lines)
    for line in lines:
        print(log_line(line))
    if not options.follow:
        if not lines:
            state = msg("run {id} ({run}) has printed nothing", id=run.id, run=state_word(run))
            print(msg("{state}; what happened: finetop logs {id} --events", state=state, id=run.id), file=sys.stderr)
        return 0
    _follow(conn, run.id, folder, options.lines)
    run = find_run(conn, run.id)
    end = f"run {run.id}: {state_word(run)}" + (f": {first_line(run.reason)}" if run.reason else "")
    print(visible(end), file=sys.stderr)
    return 0


def _goes_on(conn: Connection, run_id: int, folder: Path) -> bool:
    run = queries.run(conn, run_id)
    return run is not None and (run.active or run.state is RunState.QUEUED or worker_alive(folder))


def _follow(conn: Connection, run_id: int, folder: Path, lines: int) -> None:
    """The run's story so far, then log and progress as they come, until the run has ended and its worker is gone."""
    log = _Log(folder / LOG)
    watcher = Watcher(run_id, folder, earlier=lines, out=sys.stdout)
    try:
        going = True
        while going:
            going = _goes_on(conn, run_id, folder)  # asked first: what is read after the end is all there will be
            for line in log.new_lines(last=not going):
                watcher.say(log_line(line))
            watcher.read()
            if going:
                time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        watcher.clear()
        if _goes_on(conn, run_id, folder):
            print(msg("run {run_id} goes on without being watched", run_id=run_id), file=sys.stderr)
        raise
    watcher.clear()


class _Log:
    """What is added to a log from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def new_lines(self, last: bool) -> list[str]:
        """Whole lines; with `last` what has no line break yet, too."""
        try:
            with open(self._path, "rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = 0  # the log was cut short
                file.seek(self._offset)
                data = file.read()
        except OSError:
            data = b""
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if last and self._rest:
            whole.append(self._rest)
        return [line.decode("utf-8", "replace") for line in whole]


def _print_events(conn: Connection, folder: Path, options: argparse.Namespace) -> int:
    """Steps are told while they are followed: each as JSON, one every ten seconds as text."""
    events, offset = journal.read(folder)
    told = [event for event in events if event["kind"] not in _QUIET]
    for event in told[-options.lines :] if options.lines else told:
        _print_event(event, options.json)
    may_tell = _each_seconds(PLAIN_LINE_SECONDS)
    going = options.follow
    while going:
        going = _goes_on(conn, options.id, folder)
        events, offset = journal.read(folder, offset)
        for event in events:
            kind = event["kind"]
            if kind not in _QUIET or (kind == "metric" and (options.json or may_tell())):
                _print_event(event, options.json)
        sys.stdout.flush()
        if going:
            time.sleep(_POLL_SECONDS)
    return 0


def _each_seconds(seconds: float) -> Callable[[], bool]:
    """A question that is answered by yes once in so many seconds."""
    last = -seconds

    def asked() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    return asked


def _print_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(event, ensure_ascii=False))
        return
    kind, fields = event["kind"], {key: value for key, value in event.items() if key not in _UNTOLD}
    step = f"step {event['step']:,}  " if isinstance(event.get("step"), int) else ""
    message = fields.pop("message", "") if kind == "event" else ""
    name = fields.pop("event", kind) if kind == "event" else kind
    if kind == "metric":
        fields = fields.pop("values", {}) | fields
    detail = message or ", ".join(f"{key} {_short(value)}" for key, value in fields.items())
    print(cut(visible(f"{clock(event['t'])}  {name:<12}  {step}{detail}".replace("\n", " ")), output_width()))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 120)
