"""What the scheduler decides on, and what it may decide."""

import enum
from dataclasses import dataclass, field

from engine.base.units import GIB

CPU_SLOTS = "cpu_slots"
"""The name in the store's `meta` of how many runs may train on the CPU at the same time."""
FOREIGN_MEMORY_IGNORED_BYTES = GIB
"""A display server or an idle notebook; a GPU with more than this of others is no place for a run of unknown size."""


@dataclass(frozen=True, slots=True)
class ForeignProcess:
    """A process on a GPU that is not one of our runs."""

    pid: int
    user: str | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or MIG slice, as the driver sees it now."""

    id: str
    """Index or UUID: the name by which runs are pinned to it."""
    total_bytes: int
    free_bytes: int
    foreign: tuple[ForeignProcess, ...] = ()
    other_names: tuple[str, ...] = ()
    """By which it may be pinned too, such as its UUID beside its index."""


@dataclass(frozen=True, slots=True)
class Dependency:
    run: int
    state: str | None
    """The state of the run to be done first; None when it was deleted."""


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """One queued run; `State.waiting` lists them in the queue's own order."""

    id: int
    priority: int = 0
    held: bool = False
    after: tuple[Dependency, ...] = ()
    not_before: float | None = None
    """A retry pauses until then."""
    gpus_wanted: int = 1
    """0 for a run that is to use no GPU; on a machine without any, 1 means a CPU slot too."""
    pinned: tuple[str, ...] = ()
    """Only these GPUs will do."""
    estimate_bytes: int | None = None
    """Peak memory on each of its GPUs; None when nobody knows."""
    share: bool = False


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run that has a worker, or has been promised one; until its process is gone, and its memory with it."""

    id: int
    gpus: tuple[str, ...] = ()
    """Empty for a run in a CPU slot."""
    promised_bytes: int = 0
    """On each of its GPUs, or of the host: its estimate less what it has allocated so far, at least 0."""
    share: bool = False
    known: bool = True
    """It has an estimate: it takes no more than it holds and was promised."""


@dataclass(frozen=True, slots=True)
class WaitingEngine:
    """An engine that the server asks for."""

    key: str
    base: str
    """The name of its model."""
    estimate_bytes: int | None = None
    behind: int | None = None
    """The run it gave way to, which is to start first."""


@dataclass(frozen=True, slots=True)
class ActiveEngine:
    """An engine until its process is gone."""

    key: str
    base: str
    gpus: tuple[str, ...] = ()
    """Empty for one in the host's memory."""
    promised_bytes: int = 0
    """Its estimate less what it has allocated so far, at least 0."""
    estimate_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """All a decision rests on."""

    waiting: tuple[WaitingRun, ...] = ()
    active: tuple[ActiveRun, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    cpu_slots: int = 1
    disk_full: str = ""
    """What is full, in words; nothing starts then."""
    now: float = 0.0
    wanted: tuple[WaitingEngine, ...] = ()
    engines: tuple[ActiveEngine, ...] = ()
    host: Gpu | None = None
    """The memory of a machine without a GPU; None where there is one, or the memory is not known."""


class WaitKind(enum.StrEnum):
    """Why a run waits, in one word that lists can show."""

    HELD = "held"
    AFTER = "after"
    """Another run has to be done first."""
    LATER = "later"
    """A pause before the next attempt."""
    DISK = "disk"
    BUSY = "busy"
    """GPUs or CPU slots are taken by our own runs."""
    MEMORY = "memory"
    """GPUs are there, but too little of their memory is free."""
    KEPT = "kept"
    """A GPU is free, and kept for a run further in front."""
    NEVER = "never"
    """This machine cannot run it as it is."""


@dataclass(frozen=True, slots=True)
class Start:
    run: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    run: int
    kind: WaitKind
    reason: str
    """In the user's words, without the run's name."""


@dataclass(frozen=True, slots=True)
class StartEngine:
    key: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitEngine:
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class GiveWay:
    """An engine that is to leave as soon as it can."""

    key: str
    run: int | None
    """None: to another engine."""


Decision = Start | Wait | StartEngine | WaitEngine | GiveWay
HOST = "host"


@dataclass(slots=True)
class Slot:
    """One GPU while a decision is being made."""

    gpu: Gpu
    free: int
    runs: list[int] = field(default_factory=list)
    exclusive: bool = False
    """One of its runs shares with nobody."""
    kept_for: WaitingRun | None = None
    engines: list[ActiveEngine | WaitingEngine] = field(default_factory=list)
    known: bool = True
    """What each of its runs needs at most."""

    @property
    def engine_bytes(self) -> int:
        """What there would be if the engines had left."""
        return sum(engine.estimate_bytes or 0 for engine in self.engines)

    @property
    def name(self) -> str:
        """As sentences have it."""
        return "this machine" if self.gpu.id == HOST else f"GPU {self.gpu.id}"

    @property
    def foreign_bytes(self) -> int:
        return sum(process.memory_bytes or 0 for process in self.gpu.foreign)

    def names(self) -> tuple[str, ...]:
        return (self.gpu.id, *self.gpu.other_names)

    @property
    def others_bytes(self) -> int:
        """Of other people's processes, if they are worth speaking of."""
        return self.foreign_bytes if self.foreign_bytes > FOREIGN_MEMORY_IGNORED_BYTES else 0
