"""What the store hands out: frozen values, no behaviour beyond plain questions about themselves.

Times are UTC epoch seconds. A metric that is None was NaN, or has not been logged.
"""

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from engine.metrics.best_evaluation import LOSS, Best, Criterion, parse_criterion


class RunState(enum.StrEnum):
    """Where a run stands. Glyph, word and colour are looked up elsewhere."""

    QUEUED = "queued"
    """Waits for its turn; with `held` until someone releases it."""
    STARTING = "starting"
    """Claimed by the daemon; its worker is loading."""
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """Ended on request."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Its worker vanished with the machine or the daemon; nobody requested it, and it may be resumed."""


ACTIVE = frozenset({RunState.STARTING, RunState.RUNNING})
"""A worker exists, or is being started."""
ENDED = frozenset({RunState.DONE, RunState.STOPPED, RunState.FAILED, RunState.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class NewRun:
    """What `queue.add` needs to know of a run."""

    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Every setting by its path, resolved: the run keeps the settings of the moment it was queued."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """For each setting's path the layer its value came from."""
    model: str = ""
    data: str = ""
    """The data files in words, for lists and the filter `data:`."""
    method: str = ""
    objective: str = ""
    preset: str = ""
    sweep: str = ""
    """The name of the group it was queued with."""
    tags: tuple[str, ...] = ()
    note: str = ""
    priority: int = 0
    held: bool = False
    after: tuple[int, ...] = ()
    """Runs that must be done first."""
    parent_run: int | None = None
    """The run whose checkpoint at `parent_step` it starts from."""
    parent_step: int | None = None
    gpus_wanted: int = 1
    gpus_pinned: tuple[str, ...] = ()
    share: bool = False
    """May run beside another run on the same GPU."""
    estimate_bytes: int | None = None
    """Peak memory on each of its GPUs."""
    estimate_seconds: float | None = None
    total_steps: int | None = None
    retries: int = 0
    created: float | None = None
    """Now, when None."""


class Run(NamedTuple):
    """One row of the list of runs; all of it comes from one table.

    A named tuple, where the others are dataclasses: a frozen dataclass of 50 fields takes 4 µs to make, this one 0.4,
    and a list has 5,000 of them.
    """

    id: int
    name: str
    state: RunState
    wanted: str | None
    """'stop' or 'kill': what was requested and the daemon has not carried out yet."""
    held: bool
    priority: int
    position: int
    not_before: float | None
    """A retry waits until then."""
    wait_kind: str | None
    wait_reason: str | None
    """Why it waits, as the scheduler last said."""
    sweep: str
    tags: tuple[str, ...]
    note: str
    preset: str
    model: str
    data: str
    method: str
    objective: str
    parent_run: int | None
    parent_step: int | None
    resume_step: int | None
    """The checkpoint to go on from when it is next started; None: its latest, if any."""
    gpus_wanted: int
    gpus_pinned: tuple[str, ...]
    gpus: tuple[str, ...]
    """The GPUs it was given when it was last started."""
    share: bool
    estimate_bytes: int | None
    estimate_seconds: float | None
    retries: int
    attempts: int
    """How often it has been started."""
    pid: int | None
    pid_started: float | None
    """With the pid, what makes a process recognisable after a restart of the daemon."""
    host: str | None
    created: float
    queued: float | None
    started: float | None
    """Of the latest attempt."""
    finished: float | None
    busy_seconds: float
    """Spent in earlier attempts."""
    beat: float | None
    beat_due: float | None
    """When the next sign of life was promised at the latest."""
    step: int
    total_steps: int | None
    epoch: float | None
    train_loss: float | None
    eval_loss: float | None
    best_eval: float | None
    """The best value of what `eval.best` names, since training began."""
    best_eval_step: int | None
    step_seconds: float | None
    tokens_per_second: float | None
    reason: str | None
    """Why it ended, in a few words; `queries.error` has it in full."""
    exit_code: int | None
    trashed: float | None
    start_eval: float | None = None
    """What `eval.best` names, before the first step."""
    best_by: str = LOSS.text
    """`eval.best` in full, such as `macro_f1:max`."""
    phase: str | None = None
    """Of a run with a worker what that does instead of steps: loading, evaluating, saving."""
    nan_since: int | None = None
    """The first step since which the training loss has been NaN or infinite; None while its last value is a number."""

    @property
    def loss_is_nan(self) -> bool:
        """Whether nothing but the loss says so: a worker of finetop stops at such a step, and says it as the reason."""
        return self.nan_since is not None and not (self.state is RunState.FAILED and self.reason)

    @property
    def best(self) -> Best:
        return Best(parse_criterion(self.best_by), self.best_eval, self.best_eval_step, self.start_eval)

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def seconds_left(self) -> float | None:
        """Of training, at the pace of the last steps; evaluations and saves come on top. The first step is no pace."""
        if not self.active or not self.total_steps or self.step_seconds is None or self.step < 2:
            return None
        return max(0, self.total_steps - self.step) * self.step_seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a change was made. A lost one says why, in the user's words: another process was quicker, say."""

    won: bool
    run_id: int
    state: RunState | None = None
    """The run's state afterwards; None if there is no such run."""
    why: str = ""
    notes: tuple[str, ...] = ()
    """What the user should know of a change that was made."""

    def __bool__(self) -> bool:
        return self.won


@dataclass(frozen=True, slots=True)
class Imported:
    """What one look at a journal brought."""

    events: int
    offset: int
    points: int = 0
    damaged: int = 0
    """Lines that were no JSON object; they are skipped."""
    restarted: bool = False
    """The file was shortened or replaced, and has been read again from its beginning."""


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    run_id: int
    time: float
    kind: str
    """'state', 'resume', or the event's own name, such as 'oom' or 'early-stop'."""
    step: int | None
    message: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    run_id: int
    step: int
    epoch: float | None
    path: str
    """Inside the run's folder."""
    bytes: int | None
    kept: tuple[str, ...]
    """Why it is kept: 'best', 'latest', 'epoch-1', ..."""
    eval: Mapping[str, float | None]
    parent_run: int | None
    """Where the training that led to it started: a checkpoint of the same run, or of the one it was forked from."""
    parent_step: int | None
    time: float
    pinned: bool
    removed: float | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    run_id: int
    step: int
    time: float
    scores: Mapping[str, float | None]
    detail: Mapping[str, Any]
    """Whatever else the worker said of it, such as the hash of the held-out rows."""


@dataclass(frozen=True, slots=True)
class SettingValue:
    key: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Series:
    """The summary of one metric of one run. Steps are -1 where it has no points yet."""

    run_id: int
    key: str
    count: int = 0
    nonfinite: int = 0
    """How many of the points were NaN or infinite."""
    first_step: int = -1
    first: float | None = None
    last_step: int = -1
    last: float | None = None
    low_step: int | None = None
    low: float | None = None
    """The smallest finite value; None when there was none."""
    high_step: int | None = None
    high: float | None = None
    id: int = 0
    """Its row in the store."""

    def standing(self, criterion: Criterion) -> Best:
        """By the summary alone: of a series never better than at its start, the last value stands for those since."""
        is_start = self.first_step == 0 and self.first is not None and math.isfinite(self.first)
        start = self.first if is_start else None
        value, step = (self.low, self.low_step) if criterion.lower else (self.high, self.high_step)
        if step == 0:
            value, step = (self.last, self.last_step) if self.last_step else (None, None)
        return Best(criterion, value, step, start)

    def extended(self, points: Iterable[tuple[int, float | None]]) -> "Series":
        """With points that all lie beyond `last_step`, in order."""
        low_step, low, high_step, high = self.low_step, self.low, self.high_step, self.high
        added = nonfinite = 0
        first: tuple[int, float | None] | None = None if not self.count else (self.first_step, self.first)
        step, value = self.last_step, self.last
        for step, value in points:
            first = first or (step, value)
            added += 1
            if value is None or not math.isfinite(value):
                nonfinite += 1
                continue
            if low is None or value < low:
                low_step, low = step, value
            if high is None or value > high:
                high_step, high = step, value
        first_step, first_value = first or (self.first_step, self.first)
        return replace(
            self,
            count=self.count + added,
            nonfinite=self.nonfinite + nonfinite,
            first_step=first_step,
            first=first_value,
            last_step=step,
            last=value,
            low_step=low_step,
            low=low,
            high_step=high_step,
            high=high,
        )


@dataclass(frozen=True, slots=True)
class Point:
    step: int
    value: float | None
    """None for NaN."""


@dataclass(frozen=True, slots=True)
class Column:
    """What falls into one column of a chart."""

    x: float
    """Middle of the column, in the unit of the chart's x axis."""
    first_step: int
    last_step: int
    low: float | None
    high: float | None
    mean: float | None
    """Of the finite values; None for a gap: a column with only NaN in it."""
    count: int
    nonfinite: int


@dataclass(frozen=True, slots=True)
class Chart:
    run_id: int
    key: str
    x: str
    """'step', 'time' (seconds since the run's first point) or 'tokens'."""
    low_x: float
    high_x: float
    columns: tuple[Column, ...]
    """Only those that hold a point, left to right."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment, or over `bucket_seconds` that begin at `time`, as kept for the record."""

    gpu: str
    time: float
    run_id: int | None = None
    utilisation: float | None = None
    memory_bytes: int | None = None
    """The highest of the bucket."""
    power_watts: float | None = None
    temperature: float | None = None
    """In °C, the highest of the bucket."""
    samples: int = 1
    bucket_seconds: int = 1
