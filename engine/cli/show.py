"""`finetop show`, `logs` and `checkpoints`: one run at a look."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine import journal
from engine.cli.look import busy_seconds, state_word, steps_text
from engine.cli.stored import as_json, find_run, open_store, print_json, seconds_left
from engine.cli.text import Column, ago, bytes_text, cut, duration, number, output_width, table, visible
from engine.config import SETTINGS, Resolved, read_run
from engine.control import Control
from engine.errors import EngineError, InputError
from engine.home import CHECKPOINTS, LOG, Workspace, find_workspace, parse_checkpoint_name
from engine.process import worker_alive
from engine.runs import data_changes
from engine.store import reads
from engine.store.connect import Connection
from engine.store.records import Checkpoint, Run, RunState

_SHOW_EXAMPLES = "examples:\n  finetop show 41\n  finetop show 41 --json | jq .settings\n"
_LOGS_EXAMPLES = "examples:\n  finetop logs 41 -f\n  finetop logs 41 --events\n"
_CHECKPOINTS_EXAMPLES = "examples:\n  finetop checkpoints 41\n  finetop checkpoints 41 --pin 1200\n"
_POLL_SECONDS = 0.2
_BLOCK = 1 << 16
_EVENTS_SHOWN = 12
_LOG_LINES = 8
_CHECKPOINTS_SHOWN = 6
_PIECE = 4_000
"""Characters of one line that are shown: a log may hold a megabyte without a line break."""
_DETAILS = ("data", "plan", "model", "memory")
"""Events that hold figures rather than words; `show` has them in their places."""
_QUIET = frozenset({"beat", "metric"})


def add_parsers(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    show = commands.add_parser(
        "show",
        help="one run: state, settings, events, checkpoints, what went wrong",
        epilog=_SHOW_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    show.add_argument("id", metavar="ID", type=_run_id, help="the run")
    show.add_argument("--all", action="store_true", help="every setting and every event")
    show.add_argument("--json", action="store_true", help="print as JSON")
    show.set_defaults(run=run_show)
    logs = commands.add_parser(
        "logs", help="what a run's worker printed", epilog=_LOGS_EXAMPLES, formatter_class=style, parents=[common]
    )
    logs.add_argument("id", metavar="ID", type=_run_id, help="the run")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    logs.add_argument("-n", "--lines", type=int, default=200, metavar="N", help="the last N lines (0: all)")
    logs.add_argument("--events", action="store_true", help="the events of its journal instead of what it printed")
    logs.add_argument("--json", action="store_true", help="with --events: one JSON object a line")
    logs.set_defaults(run=run_logs)
    checkpoints = commands.add_parser(
        "checkpoints",
        help="checkpoints of a run, or of all",
        epilog=_CHECKPOINTS_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    checkpoints.add_argument("id", metavar="ID", nargs="?", type=_run_id, help="the run (default: all)")
    checkpoints.add_argument("--pin", type=int, metavar="STEP", help="keep it, whatever the save. settings say")
    checkpoints.add_argument("--unpin", type=int, metavar="STEP", help="let the save. settings decide again")
    checkpoints.add_argument("--json", action="store_true", help="print as JSON")
    checkpoints.set_defaults(run=run_checkpoints)


def _run_id(text: str) -> int:
    return parse_checkpoint_name(text.lstrip("#"))[0]


# show


def run_show(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    run = find_run(conn, options.id)
    folder = run_place(workspace, run)
    resolved, problem = _settings(folder)
    changes = data_changes(folder, resolved.config) if resolved and run.state is RunState.QUEUED else []
    events, checkpoints = reads.events(conn, run.id), reads.checkpoints(conn, run.id)
    waits_for = [after for after, _ in reads.dependencies(conn).get(run.id, ())]
    memory = _memory(conn, run)
    if options.json:
        settings = {
            setting.key: {"value": setting.value, "origin": setting.origin} for setting in reads.settings(conn, run.id)
        }
        print_json(
            as_json(
                run,
                folder=str(folder),
                after=waits_for,
                error=reads.error(conn, run.id),
                data_changes=changes,
                memory=memory,
                settings=settings,
                metrics={key: _series_json(series) for key, series in reads.series(conn, run.id).items()},
                events=[_record(event) for event in events],
                checkpoints=[_checkpoint_json(one, workspace) for one in checkpoints],
            )
        )
        return 0
    width = output_width()
    lines = _head(run, folder, waits_for, memory)
    if changes:
        lines += ["", "the data is not what it was when it was queued", *(f"  {change}" for change in changes)]
    lines += _wrong(conn, run, folder)
    lines += _settings_lines(resolved, options.all) if resolved else ["", f"settings: {problem}"]
    told = [event for event in events if event.kind not in _DETAILS] if not options.all else events
    shown = told if options.all else told[-_EVENTS_SHOWN:]
    if shown:
        left_out = len(told) - len(shown)
        lines += ["", "events" + (f" ({left_out:,} earlier ones: --all)" if left_out else "")]
        lines += [f"  {_clock(event.time)}  {_words(event.kind, event.message, event.detail)}" for event in shown]
    if checkpoints:
        listed = checkpoints if options.all else _worth_listing(checkpoints)
        more = len(checkpoints) - len(listed)
        lines += ["", "checkpoints" + (f" ({more:,} more: finetop checkpoints {run.id})" if more else "")]
        lines += _checkpoint_table(conn, listed, workspace, width, indent=2)
    for line in lines:
        for piece in visible(line).split("\n"):
            print(cut(piece, width))
    return 0


def run_place(workspace: Workspace, run: Run) -> Path:
    """Where a run's folder lies: among the others, or in the trash."""
    return (workspace.runs if run.trashed is None else workspace.trash) / str(run.id)


def _settings(folder: Path) -> tuple[Resolved | None, str]:
    try:
        return read_run(folder), ""
    except EngineError as error:
        return None, error.message


def _head(run: Run, folder: Path, waits_for: list[int], memory: dict[str, Any]) -> list[str]:
    lines = [f"run {run.id}  {run.name}", f"  state     {_state_line(run)}"]
    if run.total_steps or run.step:
        share = f"  ({run.step / run.total_steps:.0%})" if run.total_steps else ""
        left = seconds_left(run)
        lines.append(f"  step      {steps_text(run)}{share}" + (f"  {duration(left)} of training left" if left else ""))
    if run.train_loss is not None:
        best = f"  best {number(run.best_eval)} at step {run.best_eval_step}" if run.best_eval is not None else ""
        lines.append(f"  loss      {number(run.train_loss)}  eval {number(run.eval_loss)}{best}")
    if run.started is not None:
        attempts = f"  in {run.attempts} attempts" if run.attempts > 1 else ""
        lines.append(f"  time      {duration(busy_seconds(run))}{attempts}  started {_clock(run.started)}")
    if run.tokens_per_second:
        lines.append(f"  speed     {run.tokens_per_second:,.0f} tokens/s  {run.step_seconds or 0:.3g} s a step")
    if memory:
        words = {"predicted_bytes": "predicted", "measured_bytes": "measured at most"}
        lines.append(
            "  memory    " + "  ".join(f"{words[key]} {_gib(value)}" for key, value in memory.items() if value)
        )
    if run.gpus:
        lines.append(f"  GPU       {', '.join(run.gpus)}")
    if waits_for and run.state is RunState.QUEUED:
        lines.append(f"  after     {', '.join(map(str, waits_for))}")
    if run.parent_run is not None:
        lines.append(f"  from      {run.parent_run}@{run.parent_step}")
    if run.sweep:
        lines.append(f"  group     {run.sweep}")
    if run.tags:
        lines.append(f"  tags      {' '.join(run.tags)}")
    if run.note:
        lines.append(f"  note      {run.note}")
    return [*lines, f"  folder    {folder}"]


def _state_line(run: Run) -> str:
    if run.trashed is not None:
        return f"in the trash, was {run.state.value}"
    if run.state is RunState.QUEUED:
        return f"{state_word(run)}: {run.wait_reason}" if run.wait_reason and not run.held else state_word(run)
    when = f"  {ago(run.finished)}" if run.finished is not None and run.ended else ""
    reason = f": {run.reason}" if run.reason else ""
    code = f" (exit code {run.exit_code})" if run.exit_code and run.state is RunState.FAILED else ""
    return f"{state_word(run)}{reason}{code}{when}"


def _wrong(conn: Connection, run: Run, folder: Path) -> list[str]:
    """What went wrong, with the last words of the log."""
    if run.state not in (RunState.FAILED, RunState.INTERRUPTED):
        return []
    lines = ["", "what went wrong", f"  {run.reason or 'nobody knows'}"]
    hint = next(
        (event.detail["hint"] for event in reversed(reads.events(conn, run.id)) if event.detail.get("hint")), ""
    )
    lines += [f"  {hint}"] if hint else []
    story = reads.error(conn, run.id).strip().splitlines()[-_LOG_LINES:]
    tail = story or _tail(folder / LOG, _LOG_LINES)
    if tail:
        lines += [f"  last lines of {folder / LOG}:", *(f"    {line[:_PIECE]}" for line in tail)]
    if run.step and run.state is RunState.FAILED:
        lines.append(f"  go on from the last checkpoint: finetop resume {run.id}")
    return lines


def _settings_lines(resolved: Resolved, everything: bool) -> list[str]:
    flat = resolved.config.flat()
    shown = [path for path in SETTINGS if everything or flat[path] != SETTINGS[path].default]
    if not shown:
        return []
    width = max(map(len, shown))
    title = "settings" if everything else "settings that differ from the defaults"
    lines = ["", title]
    for path in shown:
        value = flat[path]
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        text = text if len(text) <= 60 else f"…{text[-59:]}"
        lines.append(f"  {path:<{width}}  {text.replace(chr(10), '⏎') or '—'}  ({resolved.origin[path]})")
    return lines


def _memory(conn: Connection, run: Run) -> dict[str, Any]:
    """Bytes on each GPU: what was predicted, and the most that was measured."""
    found: dict[str, Any] = {}
    if run.estimate_bytes is not None:
        found["predicted_bytes"] = run.estimate_bytes
    told = [event.detail for event in reads.events(conn, run.id) if event.kind == "memory"]
    if told:  # the worker's own peak, so far; on a GPU what it took from the card
        found["measured_bytes"] = told[-1].get("reserved_bytes") or told[-1].get("peak_bytes")
    elif (card := reads.series(conn, run.id).get("gpu/memory")) and card.high is not None:
        found["measured_bytes"] = int(card.high)
    return found


def _gib(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"


def _series_json(series: Any) -> dict[str, Any]:
    return {name: getattr(series, name) for name in series.__slots__ if name not in ("run_id", "key")}


def _record(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _words(kind: str, message: str, detail: Any) -> str:
    if kind == "state":
        reason = f": {detail['reason']}" if detail.get("reason") else ""
        return f"{message}{reason}"
    if kind in _DETAILS:
        return f"{kind}: {cut(json.dumps(dict(detail), ensure_ascii=False), 200)}"
    return f"{kind}: {message}" if message else kind


def _clock(moment: float) -> str:
    """Local time; with its date where that is not today's."""
    then, now = time.localtime(moment), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)


# logs


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
    for line in _tail(path, options.lines):
        print(_log_line(line))
    offset = path.stat().st_size if path.exists() else 0
    if options.follow:
        for line in _new_lines(conn, run.id, path, offset):
            print(_log_line(line), flush=True)
    return 0


def _log_line(line: str) -> str:
    """What stands after the last carriage return is what a terminal would have been left with."""
    return visible(line.rstrip("\r").rsplit("\r", 1)[-1][:_PIECE].expandtabs())


def _tail(path: Path, lines: int) -> list[str]:
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
    print(cut(visible(f"{_clock(event['t'])}  {name:<12}  {step}{detail}".replace("\n", " ")), output_width()))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 120)


# checkpoints


def run_checkpoints(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    for step, pinned in ((options.pin, True), (options.unpin, False)):
        if step is None:
            continue
        if options.id is None:
            raise InputError("whose checkpoint?", "finetop checkpoints 41 --pin 1200")
        with Control(workspace) as control:
            outcome = control.pin(options.id, step, pinned)
        if not outcome:
            raise InputError(outcome.why)
    if options.id is not None:
        find_run(conn, options.id)
    found = reads.checkpoints(conn, options.id)
    if options.json:
        print_json([_checkpoint_json(one, workspace) for one in found])
    elif found:
        print("\n".join(_checkpoint_table(conn, found, workspace, output_width())))
    else:
        print("no checkpoints yet", file=sys.stderr)
    return 0


def _worth_listing(found: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    """The newest ones, and those that somebody chose or that are the best."""
    return tuple(
        one for place, one in enumerate(found) if place < _CHECKPOINTS_SHOWN or one.pinned or "best" in one.kept
    )


_CHECKPOINT_COLUMNS = [
    Column("checkpoint"),
    Column("names", least=8),
    Column("epoch", right=True),
    Column("eval", right=True),
    Column("size", right=True),
    Column("resumable"),
    Column("comes from", least=6),
    Column("made", right=True),
]


def _checkpoint_table(
    conn: Connection, found: tuple[Checkpoint, ...], workspace: Workspace, width: int, indent: int = 0
) -> list[str]:
    evaluated = {
        run_id: {one.step: one.scores.get("eval/loss") for one in reads.evaluations(conn, run_id)}
        for run_id in {one.run_id for one in found}
    }
    rows = []
    for one in found:
        loss = one.eval.get("eval/loss", evaluated[one.run_id].get(one.step))
        came = ""
        if one.parent_step is not None:
            came = f"{one.parent_run}@{one.parent_step}"
        rows.append(
            [
                f"{one.run_id}@{one.step}",
                " ".join([*one.kept, *(["pinned"] if one.pinned else [])]),
                "" if one.epoch is None else f"{one.epoch:.2f}",
                "" if loss is None else number(loss),
                "" if one.bytes is None else bytes_text(one.bytes),
                _resumable(one, workspace),
                came,
                ago(one.time),
            ]
        )
    return table(_CHECKPOINT_COLUMNS, rows, width, indent)


def _resumable(one: Checkpoint, workspace: Workspace) -> str:
    for base in (workspace.runs, workspace.trash):
        folder = base / str(one.run_id) / (one.path or f"{CHECKPOINTS}/step-{one.step:08d}")
        if folder.is_dir():
            return "yes" if (folder / "training_state.pt").exists() else "weights only"
    return "gone"


def _checkpoint_json(one: Checkpoint, workspace: Workspace) -> dict[str, Any]:
    return {"name": f"{one.run_id}@{one.step}", **_record(one), "resumable": _resumable(one, workspace) == "yes"}
