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

    place: float
    """How long the log was by then; infinite for after all of it."""
    line: Line


class _Said(NamedTuple):
    time: float
    state: RunState
    text: str
    place: int | None = None
    """As the worker told it: how long the log was."""
    after: bool = False
    """Whether nothing more was printed until the next start."""


def log_markers(run: Run, events: Sequence[Event]) -> list[LogMarker]:
    """The changes in the order of time, those at which no worker was there to tell its place put between the others."""
    said = _said(run, events)
    found: list[LogMarker] = []
    place: float = 0
    for index, one in enumerate(said):
        if one.place is not None:
            place = one.place
        elif one.after:
            place = next((later.place for later in said[index + 1 :] if later.place is not None), math.inf)
        when, look = clock(one.time, said[-1].time), STATE_STYLES[one.state]
        line: Line = [("── ", "frame"), (when, "dim"), (f" {look.glyph} {one_line(one.text)}", look.role)]
        found.append(LogMarker(place, line))
    return found


def _said(run: Run, events: Sequence[Event]) -> list[_Said]:
    found = [_Said(run.created, RunState.QUEUED, "queued")]
    attempts, last = 0, None
    for event in events:
        if event_text.event_name(event.kind, event.message) == "resume":
            found.append(_Said(event.time, RunState.STARTING, event.message))
        if event.kind != "state" or event.message not in _STATES:
            continue
        last, place = RunState(event.message), event.detail.get("log_bytes")
        text = event_text.describe_event(event.kind, event.message, event.detail)
        if last is RunState.STARTING:
            attempts += 1
            text = "started" if attempts == 1 else msg("started again, attempt {attempts}", attempts=attempts)
            place = 0 if place is None and attempts == 1 else place
        found.append(_Said(event.time, last, text, place if isinstance(place, int) else None, last in ENDED))
    if run.queued is not None and run.queued > run.created:
        again = _Said(run.queued, RunState.QUEUED, "queued again", after=True)
        later = (index for index, one in enumerate(found) if one.state is RunState.STARTING and one.time >= run.queued)
        found.insert(next(later, len(found)), again)
    if run.ended and last is not run.state and run.finished is not None:  # its worker could not say so itself
        text = f"{run.state.value}: {run.reason}" if run.reason else run.state.value
        found.append(_Said(run.finished, run.state, text, after=True))
    return found
