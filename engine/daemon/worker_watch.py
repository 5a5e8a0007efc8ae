"""One worker as the daemon watches it: which process it is, when its next sign of life is due, what it wrote last."""

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from engine.base.oom_kills import OomWatch
from engine.runs import journal
from engine.store.run_records import Run, RunState

_FIRST_HEARTBEAT_SECONDS = 600.0
"""A worker's first beat comes before torch is imported; a Python on a sick network drive may take minutes to start."""
_TAIL_BYTES = 1 << 16


@dataclass(slots=True)
class Worker:
    """The worker of one run, until its end is on record."""

    run: Run
    """As last read from the store."""
    folder: Path
    pid: int | None = None
    """None while it is known by its lock only."""
    started: float | None = None
    """Its process' start time, epoch seconds."""
    process: subprocess.Popen | None = None
    status: int | None = None
    """As wait(2) has it, once it has ended."""
    recorded: bool = False
    """The store knows its pid."""
    requested: str | None = None
    """'stop' or 'kill': what a user asked for."""
    signal_sent: str | None = None
    """'stop' or 'kill': what this daemon has signalled."""
    journal_stat: tuple[int, int] = (-1, -1)
    """Size and time of the journal when it was last read."""
    oom: OomWatch | None = None
    """Since its process is known."""
    first_seen_at: float = field(default_factory=time.monotonic)
    """By `monotonic()`, as are the four that follow: the clock on the wall may be set by hours at any moment."""
    heartbeat: tuple[float | None, float | None] = (None, None)
    """The run's `beat` and `beat_due` that `heartbeat_deadline` was computed from."""
    heartbeat_deadline: float | None = None
    """When the next heartbeat is due."""
    exited_at: float | None = None
    overdue_at: float | None = None
    hung_at: float | None = None
    reported: bool = False
    """That it is overdue."""
    problem: str = ""


def heartbeat_deadline(worker: Worker, now: float) -> float | None:
    """When the worker's next sign of life is due, by `monotonic()`.

    What is left of a promise is the difference of two times by the worker's own clock, so it matters neither whether
    the daemon's agrees nor whether either is set meanwhile. It is counted from when this daemon first saw it.
    """
    heartbeat = (worker.run.beat, worker.run.beat_due)
    if heartbeat != worker.heartbeat:
        beat, due = heartbeat
        worker.heartbeat = heartbeat
        worker.heartbeat_deadline = None if beat is None or due is None else now + max(due - beat, 0.0)
    if worker.heartbeat_deadline is None and worker.run.state is RunState.STARTING:
        return worker.first_seen_at + _FIRST_HEARTBEAT_SECONDS
    return worker.heartbeat_deadline


def last_pid(folder: Path) -> tuple[int | None, float]:
    """The pid that a run's journal named last, and when."""
    size = file_stamp(folder / journal.NAME)[0]
    events, _ = journal.read(folder, max(size - _TAIL_BYTES, 0))
    naming = next((event for event in reversed(events) if isinstance(event.get("pid"), int)), None)
    return (naming["pid"], float(naming["t"])) if naming else (None, 0.0)


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and time of last change; zeros where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
