"""`finetop show`: the whole story of a run."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import EngineError
from engine.base.log_tail import PIECE, tail
from engine.base.messages import msg
from engine.base.workspace import LOG, Workspace, find_workspace
from engine.cli.commands.checkpoint_list import checkpoint_json, checkpoint_table
from engine.cli.commands.list_runs import state_word, steps_text
from engine.cli.run_args import as_json, busy_seconds, find_run, open_store, run_number
from engine.metrics.best_evaluation import LOSS, Best, Criterion
from engine.metrics.names import lower_is_better
from engine.present import event_text
from engine.present.numbers import ago, bytes_text, clock, duration, metric, setting_text
from engine.present.text import cells, cut, first_line, fit, output_width, print_json, visible, wrap
from engine.runs.run_folder import data_changes
from engine.settings.resolve import Resolved, read_run
from engine.settings.schema import SETTINGS
from engine.store import queries
from engine.store.connect import Connection
from engine.store.run_records import Checkpoint, Event, Run, RunState, Series

if TYPE_CHECKING:
    from engine.plan.fixes import Fix

_EXAMPLES = "examples:\n  finetop show 41\n  finetop show 41 --json | jq .settings\n"
_EVENTS_SHOWN = 12
_LOG_LINES = 8
_CHECKPOINTS_SHOWN = 6
_DETAILS = ("data", "plan", "model", "memory")
"""Events that hold figures rather than words; `show` has them in their places."""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    style = argparse.RawDescriptionHelpFormatter
    show = commands.add_parser(
        "show",
        epilog=_EXAMPLES,
        formatter_class=style,
        parents=[common],
    )
    show.add_argument("id", metavar="ID", type=run_number, help="the run")
    show.add_argument("--all", action="store_true", help="every setting and every event")
    show.add_argument("--json", action="store_true", help="print as JSON")
    show.set_defaults(run=run_show)


def run_show(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    conn = open_store(workspace)
    run = find_run(conn, options.id)
    folder = workspace.place(run.id, run.trashed is not None)
    resolved, problem = _settings(folder)
    changes = data_changes(folder, resolved.config) if resolved and run.state is RunState.QUEUED else []
    events, checkpoints = queries.events(conn, run.id), queries.checkpoints(conn, run.id)
    waits_for = [after for after, _ in queries.dependencies(conn).get(run.id, ())]
    series = queries.series(conn, run.id)
    memory = _memory(run, events, series)
    fixes = _fixes(conn, run, folder, workspace, events)
    if options.json:
        settings = {
            setting.key: {"value": setting.value, "origin": setting.origin}
            for setting in queries.settings(conn, run.id)
        }
        print_json(
            as_json(
                run,
                folder=str(folder),
                after=waits_for,
                error=queries.error(conn, run.id),
                data_changes=changes,
                memory=memory,
                fixes=[dataclasses.asdict(fix) for fix in fixes],
                settings=settings,
                metrics={key: _series_json(one) for key, one in series.items()},
                events=[dataclasses.asdict(event) for event in events],
                checkpoints=[checkpoint_json(one, workspace) for one in checkpoints],
            )
        )
        return 0
    width = output_width()
    lines = _head(run, folder, waits_for, memory, _scores(series))
    if changes:
        lines += ["", "what the run is made of is not what it was when it was queued"]
        lines += [row for change in changes for row in _indented(change, width, 2)]
    lines += _wrong(run, folder, events, queries.error(conn, run.id), width)
    lines += _fix_lines(run, fixes, width)
    lines += _settings_lines(resolved, options.all) if resolved else ["", f"settings: {problem}"]
    worth = (
        [event for event in event_text.told_once(events) if event.kind not in _DETAILS] if not options.all else events
    )
    shown = worth if options.all else worth[-_EVENTS_SHOWN:]
    if shown:
        left_out = len(worth) - len(shown)
        lines += ["", "events" + (msg(" ({left_out:,} earlier ones: --all)", left_out=left_out) if left_out else "")]
        lines += [f"  {clock(event.time)}  {_words(event)}" for event in shown]
    if checkpoints:
        listed = checkpoints if options.all else _worth_listing(checkpoints)
        more = len(checkpoints) - len(listed)
        lines += [
            "",
            "checkpoints" + (msg(" ({more:,} more: finetop checkpoints {id})", more=more, id=run.id) if more else ""),
        ]
        lines += checkpoint_table(listed, workspace, width, indent=2)
    for line in lines:
        for piece in visible(line).split("\n"):
            print(cut(piece, width))
    return 0


def _settings(folder: Path) -> tuple[Resolved | None, str]:
    try:
        return read_run(folder), ""
    except EngineError as error:
        return None, error.message


def _scores(series: dict[str, Series]) -> list[str]:
    """The last value of each score of the answers and, where more or less of it is better, its best."""
    lines: list[str] = []
    for key in sorted(series):
        name, one = key.removeprefix("eval/"), series[key]
        if name == key or name in ("loss", "perplexity") or one.last is None:
            continue
        lower = lower_is_better(key)
        best = "" if lower is None or one.count < 2 else _best_words(one.standing(Criterion(key, lower)))
        since = " at its start, not evaluated since" if one.last_step == 0 else ""
        lines.append(f"  {'' if lines else 'scores':<8}  {name} {metric(one.last)}{since}{best}")
    return lines


def _head(run: Run, folder: Path, waits_for: list[int], memory: dict[str, Any], scores: list[str]) -> list[str]:
    lines = [f"run {run.id}  {run.name}", f"  state     {_state_line(run)}"]
    if run.total_steps or run.step:
        share = f"  ({run.step / run.total_steps:.0%})" if run.total_steps else ""
        left = run.seconds_left
        lines.append(
            f"  step      {steps_text(run)}{share}"
            + (msg("  {left} of training left", left=duration(left)) if left else "")
        )
    lines += _losses(run)
    lines += scores
    if run.started is not None:
        attempts = msg("  in {attempts} attempts", attempts=run.attempts) if run.attempts > 1 else ""
        lines.append(
            msg(
                "  time      {run}{attempts}  started {started}",
                run=duration(busy_seconds(run)),
                attempts=attempts,
                started=clock(run.started),
            )
        )
    if run.tokens_per_second:
        lines.append(
            msg(
                "  speed     {tokens_per_second:,.0f} tokens/s  {step_seconds:.3g} s/step",
                tokens_per_second=run.tokens_per_second,
                step_seconds=run.step_seconds or 0,
            )
        )
    if memory:
        words = {"predicted_bytes": "predicted", "measured_bytes": "measured at most"}
        lines.append(
            "  memory    " + "  ".join(f"{words[key]} {bytes_text(value)}" for key, value in memory.items() if value)
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


def _losses(run: Run) -> list[str]:
    best, by_loss = run.best, run.best.criterion == LOSS
    losses = [] if run.train_loss is None else [metric(run.train_loss)]
    if run.nan_since is not None:
        losses = [msg("NaN since step {step:,}", step=run.nan_since)]
    if by_loss and best.value is None and best.start is not None:
        losses.append(msg("eval loss {number}", number=best.words(metric)))
    elif run.eval_loss is not None or losses:
        losses.append(
            msg(
                "eval loss {eval_loss}{best}",
                eval_loss=metric(run.eval_loss),
                best=_best_words(best) if by_loss else "",
            )
        )
    lines = [f"  loss      {'  '.join(losses)}"] if losses else []
    if not by_loss:
        lines.append(
            msg(
                "  best      by {words}: {number}",
                words=best.criterion.words,
                number=best.words(metric) or "not evaluated yet",
            )
        )
    return lines


def _best_words(best: Best) -> str:
    """After the last value: the best, or that there was none."""
    words = best.words(metric)
    return f"  {'best ' if best.improved else ''}{words}" if words else ""


def _state_line(run: Run) -> str:
    if run.trashed is not None:
        return msg("in the trash, was {state}", state=run.state.value)
    if run.state is RunState.QUEUED:
        return f"{state_word(run)}: {run.wait_reason}" if run.wait_reason and not run.held else state_word(run)
    when = f"  {ago(run.finished)}" if run.finished is not None and run.ended else ""
    reason = f": {first_line(run.reason)}" if run.reason else ""
    code = (
        msg(" (exit code {exit_code})", exit_code=run.exit_code)
        if run.exit_code and run.state is RunState.FAILED
        else ""
    )
    return f"{state_word(run)}{reason}{code}{when}"


def _wrong(run: Run, folder: Path, events: Sequence[Event], error: str, width: int) -> list[str]:
    """What went wrong, uncut, with the last words of the log where they say more."""
    if run.state not in (RunState.FAILED, RunState.INTERRUPTED):
        return []
    lines = ["", "what went wrong", *_indented(run.reason or "nobody knows", width, 2)]
    hint = next((event.detail["hint"] for event in reversed(events) if event.detail.get("hint")), "")
    lines += _indented(hint, width, 2) if hint else []
    story = error.strip().splitlines()[-_LOG_LINES:]
    story = story or tail(folder / LOG, _LOG_LINES)
    told = {line.strip() for line in f"{run.reason or ''}\n{hint}\n".split("\n")}
    if not {line.strip() for line in story} <= told:
        lines.append(msg("  last lines of {folder}:", folder=folder / LOG))
        lines += [row for line in story for row in _indented(line[:PIECE], width, 4)]
    if run.step and run.state is RunState.FAILED:
        lines.append(msg("  go on from the last checkpoint: finetop resume {id}", id=run.id))
    return lines


def _fixes(conn: Connection, run: Run, folder: Path, workspace: Workspace, events: Sequence[Event]) -> "list[Fix]":
    """What usually helps a failed run; nothing for others, nor where its settings cannot be read."""
    if run.state not in (RunState.FAILED, RunState.INTERRUPTED):
        return []
    from engine.plan.fixes import failure_cause, fixes_of, gpu_of  # 20 ms that other runs need not pay

    gpu = None
    if run.gpus and failure_cause(run, events) == "out-of-memory":
        from engine.monitor.monitor import read_once  # 40 ms

        gpu = gpu_of(run, read_once(workspace.root, seconds=2.0).gpus)
    try:
        return fixes_of(conn, run, folder, gpu)
    except EngineError:
        return []


def _fix_lines(run: Run, fixes: "Sequence[Fix]", width: int) -> list[str]:
    """The fixes with the numbers by which `finetop add` knows them."""
    if not fixes:
        return []
    label_width = min(44, max(cells(fix.label) for fix in fixes))
    lines = ["", "what usually helps, cheapest first"]
    for number_of_fix, fix in enumerate(fixes, 1):
        lines += _indented(f"{number_of_fix}  {fit(fix.label, label_width)}  {fix.effect}".rstrip(), width, 2)
    return [*lines, msg("  queue it again with the first: finetop add --like {id} --fix 1", id=run.id)]


def _indented(text: str, width: int, indent: int) -> list[str]:
    pad = " " * indent
    pieces = visible(text).split("\n")
    return [row for piece in pieces for row in wrap(piece, max(width, indent + 20), pad, pad)]


def _settings_lines(resolved: Resolved, everything: bool) -> list[str]:
    flat = resolved.config.flat()
    shown = [
        path
        for path in SETTINGS  # a name that nobody gave is made of model and data: it says nothing here
        if everything
        or (flat[path] != SETTINGS[path].default and (path, resolved.origin[path]) != ("run.name", "default"))
    ]
    if not shown:
        return []
    width = max(map(len, shown))
    title = "settings" if everything else "settings that differ from the defaults"
    lines = ["", title]
    for path in shown:
        lines.append(f"  {path:<{width}}  {setting_text(flat[path])}  ({resolved.origin[path]})")
    return lines


def _memory(run: Run, events: Sequence[Event], series: Mapping[str, Series]) -> dict[str, Any]:
    """Bytes on each GPU: what was predicted, and the most that was measured."""
    memory: dict[str, Any] = {}
    if run.estimate_bytes is not None:
        memory["predicted_bytes"] = run.estimate_bytes
    peaks = [event.detail for event in events if event.kind == "memory"]
    if peaks:  # the worker's own peak, so far; on a GPU what it took from the card
        memory["measured_bytes"] = peaks[-1].get("reserved_bytes") or peaks[-1].get("peak_bytes")
    elif (card := series.get("gpu/memory")) and card.high is not None:
        memory["measured_bytes"] = int(card.high)
    return memory


def _series_json(series: Series) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(series).items() if name not in ("run_id", "key")}


def _words(event: Event) -> str:
    said = event_text.describe_event(event.kind, event.message, event.detail)
    name = "" if event.kind == "state" else event_text.event_name(event.kind, event.message)
    return ": ".join(filter(None, (name, said)))


def _worth_listing(checkpoints: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    """The newest ones, and those that somebody chose or that are the best."""
    return tuple(
        checkpoint
        for index, checkpoint in enumerate(checkpoints)
        if index < _CHECKPOINTS_SHOWN or checkpoint.pinned or "best" in checkpoint.kept
    )
