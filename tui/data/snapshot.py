"""What the screen knows at one time: frozen values, built by the feed thread, drawn by the panes."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.monitor import samples as monitor
from engine.store.run_records import Checkpoint, Event, Run, RunState, Series, SettingValue
from engine.store.trash import Trashed

DAEMON_STALE_SECONDS = 5.0
"""The daemon renews its heartbeat every second; five missed in a row are no accident."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """Whether the queue is being worked on."""

    running: bool = False
    pid: int | None = None
    started: float | None = None
    beat: float | None = None

    def silent_seconds(self, now: float) -> float:
        """How long its last beat is overdue; 0 while it beats."""
        if not self.running or self.beat is None:
            return 0.0
        silent = now - self.beat
        return silent if silent > DAEMON_STALE_SECONDS else 0.0


@dataclass(frozen=True, slots=True)
class Store:
    """How reading runs.db went."""

    problem: str = ""
    """In the user's words; the runs shown are then those of the last good look."""
    hint: str = ""
    missing: bool = False
    """There is no runs.db yet: no run was ever queued here."""
    since: float | None = None
    """When the problem began."""
    journal_mode: str = "wal"


@dataclass(frozen=True, slots=True)
class Detail:
    """What is known of the selected run beyond its row."""

    run_id: int
    checkpoints: tuple[Checkpoint, ...] = ()
    settings: tuple[SettingValue, ...] = ()
    events: tuple[Event, ...] = ()
    series: Mapping[str, Series] = field(default_factory=dict)
    error: str = ""
    """The error in full."""
    present: frozenset[int] | None = None
    """The steps whose checkpoint is there on disk; None: not looked."""
    rival: Run | None = None
    """The best other run on the same data; whatever the list is filtered by."""


@dataclass(frozen=True, slots=True)
class News:
    """The last thing that ended, began or went wrong, in any run, and what its words need."""

    event: Event
    run: Run | None = None
    rank: int = 0
    """Of the run's best evaluation among all runs on the same data; 0: it has none."""
    scored: int = 0
    """How many runs on that data have an evaluation."""


@dataclass(frozen=True, slots=True)
class View:
    """Which runs are asked for, and in what order."""

    matching: str = ""
    sort: str | None = None
    descending: bool = False
    focus: int | None = None
    """The run whose detail is wanted; None: the first of the list."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the panes draw, as of one time."""

    taken: float
    """UTC epoch seconds."""
    view: View = View()
    """What was asked for: an answer to an older question is recognised by it."""
    runs: tuple[Run, ...] = ()
    """Those that match the view, in its order."""
    counts: Mapping[RunState, int] = field(default_factory=dict)
    """Of all runs, whatever the view."""
    failed_today: int = 0
    detail: Detail | None = None
    news: tuple[News, ...] = ()
    """What happened since this user last left the screen, the newest last; at least the last thing, and no more than
    some hundreds."""
    trash: tuple[Trashed, ...] = ()
    """What lies in the trash, the last deletion last."""
    seen: float | None = None
    """When this user last left the screen; None: never."""
    daemon: Daemon = Daemon()
    machine: monitor.Snapshot | None = None
    """By the daemon, or without one by the screen; None: nothing has been read yet."""
    store: Store = Store()

    @property
    def last_news(self) -> News | None:
        """The last thing that happened."""
        return self.news[-1] if self.news else None

    @property
    def total(self) -> int:
        """How many runs there are, whatever the view."""
        return sum(self.counts.values())

    def run(self, run_id: int | None) -> Run | None:
        """A run that the view shows; None if it does not."""
        return next((run for run in self.runs if run.id == run_id), None)


def machine_of(content: Mapping[str, Any], now: float) -> monitor.Snapshot:
    """machine.json, as `finetop top --json` prints it, back into the monitor's values.

    Ages are what they were when it was written, plus how long ago that was. Unknown fields are skipped, so that a
    newer daemon does not blind an older screen.
    """
    late = max(0.0, now - float(content.get("t") or content.get("taken_at") or now))

    def record(kind: type, plain: Mapping[str, Any], **made: Any) -> Any:
        names = {field.name for field in dataclasses.fields(kind)}
        values = {name: _frozen(value) for name, value in plain.items() if name in names} | made
        if values.get("age_seconds") is not None:
            values["age_seconds"] += late
        return kind(**values)

    gpus = []
    for gpu in content.get("gpus") or ():
        processes = gpu.get("processes")
        if processes is not None:
            processes = tuple(record(monitor.GpuProcess, process) for process in processes)
        gpus.append(record(monitor.GpuSample, gpu, processes=processes))
    runs = {
        int(run) if str(run).isdigit() else run: record(monitor.RunSample, sample)
        for run, sample in (content.get("runs") or {}).items()
    }
    host, disk = content.get("host"), content.get("disk")
    return record(
        monitor.Snapshot,
        content,
        gpus=tuple(gpus),
        runs=runs,
        host=record(monitor.HostSample, host) if host else None,
        disk=record(monitor.DiskSample, disk) if disk else None,
    )


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
