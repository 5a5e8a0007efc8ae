"""What became of a run, for between the lines of its log: queued, started, went on from, ended and why. Pure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from engine.base.messages import msg
from engine.present import event_text
from engine.present.numbers import clock
from engine.present.text import one_line
from engine.store.run_records import ENDED, Event, Run, RunState
from tui.render.line import Line
from tui.render.theme import STATE_STYLES

_STATES = frozenset(RunState)


class LogMarker(NamedTuple):
    """One change of the run's state."""

    log_bytes: float
    """How long the log was by then; infinite for after all of it."""
    line: Line


class _Change(NamedTuple):
    time: float
    state: RunState
    text: str
    log_bytes: int | None = None
    """As the worker told it: how long the log was."""
    is_last: bool = False
    """Whether nothing more was printed until the next start."""


def log_markers(run: Run, events: Sequence[Event]) -> list[LogMarker]:
    """The changes in the order of time; those that no worker could place in its log stand between the others."""
    changes = _changes(run, events)
    markers: list[LogMarker] = []
    log_bytes: float = 0
    for index, change in enumerate(changes):
        if change.log_bytes is not None:
            log_bytes = change.log_bytes
        elif change.is_last:
            log_bytes = next(
                (later.log_bytes for later in changes[index + 1 :] if later.log_bytes is not None), math.inf
            )
        when, look = clock(change.time, changes[-1].time), STATE_STYLES[change.state]
        line: Line = [("── ", "frame"), (when, "dim"), (f" {look.glyph} {one_line(change.text)}", look.role)]
        markers.append(LogMarker(log_bytes, line))
    return markers


def _changes(run: Run, events: Sequence[Event]) -> list[_Change]:
    changes = [_Change(run.created, RunState.QUEUED, "queued")]
    attempts, last = 0, None
    for event in events:
        if event_text.event_name(event.kind, event.message) == "resume":
            changes.append(_Change(event.time, RunState.STARTING, event.message))
        if event.kind != "state" or event.message not in _STATES:
            continue
        last, log_bytes = RunState(event.message), event.detail.get("log_bytes")
        text = event_text.describe_event(event.kind, event.message, event.detail)
        if last is RunState.STARTING:
            attempts += 1
            text = "started" if attempts == 1 else msg("started again, attempt {attempts}", attempts=attempts)
            log_bytes = 0 if log_bytes is None and attempts == 1 else log_bytes
        changes.append(
            _Change(event.time, last, text, log_bytes if isinstance(log_bytes, int) else None, last in ENDED)
        )
    if run.queued is not None and run.queued > run.created:
        again = _Change(run.queued, RunState.QUEUED, "queued again", is_last=True)
        later = (
            index
            for index, change in enumerate(changes)
            if change.state is RunState.STARTING and change.time >= run.queued
        )
        changes.insert(next(later, len(changes)), again)
    if run.ended and last is not run.state and run.finished is not None:  # its worker could not say so itself
        text = f"{run.state.value}: {run.reason}" if run.reason else run.state.value
        changes.append(_Change(run.finished, run.state, text, is_last=True))
    return changes
