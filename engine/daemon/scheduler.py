"""What starts now, and why everything else waits: a pure function from state to decisions.

The order is priority, then the queue's own order. Each run in turn gets the GPUs it needs or says why not.

* One run per GPU, unless both sides allow sharing and the memory fits.
* Free memory is what the driver says less what our runs were promised and have not allocated yet, and less what is
  given away in this very decision. So no two runs are promised the same bytes. Other people's processes count by the
  memory they hold; among GPUs that will do, those without them are taken first.
* A run that cannot start because our own runs hold its GPUs keeps a place: the GPUs it will have (free ones first) are
  closed to the runs behind it, which may still use the others. Free GPUs only ever gather for it, so a run that needs
  four of them starts as soon as the runs now on them have ended, whatever is queued behind it.
* A run that could not start even if all our runs ended (someone else's process, too few GPUs, too little memory) keeps
  nothing: the machine would stand idle for as long as it waits.
* Runs that want no GPU, and all runs on a machine without one, take CPU slots.
"""

import enum
from dataclasses import dataclass, field

from engine.base.messages import msg
from engine.base.units import GIB, duration

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
    """On each of its GPUs: its estimate less what it has allocated so far, at least 0."""
    share: bool = False


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


Decision = Start | Wait


@dataclass(slots=True)
class _Slot:
    """One GPU while a decision is being made."""

    gpu: Gpu
    free: int
    runs: list[int] = field(default_factory=list)
    exclusive: bool = False
    """One of its runs shares with nobody."""
    kept_for: WaitingRun | None = None

    @property
    def foreign_bytes(self) -> int:
        return sum(process.memory_bytes or 0 for process in self.gpu.foreign)

    def names(self) -> tuple[str, ...]:
        return (self.gpu.id, *self.gpu.other_names)


def decide(state: State) -> list[Decision]:
    """One decision for each waiting run, in the order in which they take their turn."""
    slots = _slots(state)
    cpu_free = state.cpu_slots - sum(not run.gpus for run in state.active)
    cpu_kept_for: int | None = None
    decisions: list[Decision] = []
    for run in sorted(state.waiting, key=lambda run: -run.priority):  # stable: the queue's order within a priority
        blocked = _blocked(run, state)
        if blocked:
            decisions.append(blocked)
        elif run.gpus_wanted == 0 or (not slots and run.gpus_wanted == 1 and not run.pinned):
            if cpu_free > 0:
                cpu_free -= 1
                decisions.append(Start(run.id))
                continue
            decisions.append(Wait(run.id, WaitKind.BUSY, _cpu_reason(state, cpu_kept_for)))
            cpu_kept_for = cpu_kept_for or run.id
        else:
            decisions.append(_place(run, slots))
    return decisions


def _slots(state: State) -> list[_Slot]:
    slots = [_Slot(gpu, gpu.free_bytes) for gpu in state.gpus]
    for run in state.active:
        for slot in slots:
            if not set(run.gpus).isdisjoint(slot.names()):
                slot.free -= run.promised_bytes
                slot.runs.append(run.id)
                slot.exclusive |= not run.share
    return slots


def _blocked(run: WaitingRun, state: State) -> Wait | None:
    """What keeps a run from starting whatever the machine."""
    if run.held:
        return Wait(run.id, WaitKind.HELD, "held by you")
    unfinished = [dependency for dependency in run.after if dependency.state != "done"]
    if unfinished:
        return Wait(run.id, WaitKind.AFTER, "; ".join(map(_dependency_reason, unfinished)))
    if run.not_before is not None and run.not_before > state.now:
        return Wait(
            run.id,
            WaitKind.LATER,
            msg("tries again in {not_before}", not_before=duration(max(run.not_before - state.now, 1.0))),
        )
    if state.disk_full:
        return Wait(run.id, WaitKind.DISK, state.disk_full)
    return None


def _place(run: WaitingRun, slots: list[_Slot]) -> Decision:
    """Start the run on the best GPUs there are, or keep its place and say what it waits for."""
    count = run.gpus_wanted
    allowed = [slot for slot in slots if not run.pinned or not set(run.pinned).isdisjoint(slot.names())]
    never = _never(run, allowed, slots)
    if never:
        return Wait(run.id, WaitKind.NEVER, never)
    fitting = [slot for slot in allowed if slot.kept_for is None and _fits_on(run, slot)]
    if len(fitting) >= count:
        chosen = sorted(fitting, key=lambda slot: (len(slot.runs), _most_on_a_gpu(slot), slot.gpu.total_bytes))[:count]
        for slot in chosen:
            slot.free -= run.estimate_bytes or 0
            slot.runs.append(run.id)
            slot.exclusive |= not run.share or run.estimate_bytes is None  # what nobody knows leaves room for nobody
        return Start(run.id, tuple(slot.gpu.id for slot in slots if slot in chosen))
    wait = _explain(run, allowed, fitting)
    keepable = [slot for slot in allowed if slot.kept_for is None and _will_fit(run, slot)]
    if len(keepable) >= count:
        keepable.sort(key=lambda slot: (slot not in fitting, len(slot.runs), _most_on_a_gpu(slot)))
        for slot in keepable[:count]:
            slot.kept_for = run
    return wait


def _fits_on(run: WaitingRun, slot: _Slot) -> bool:
    """Whether the run may start on this GPU now."""
    if slot.runs and (slot.exclusive or not run.share or run.estimate_bytes is None):
        return False
    if run.estimate_bytes is None:
        return _most_on_a_gpu(slot) == 0
    return run.estimate_bytes <= slot.free


def _will_fit(run: WaitingRun, slot: _Slot) -> bool:
    """Whether it may once our own runs on this GPU have ended, others' processes staying as they are."""
    if run.estimate_bytes is None:
        return _most_on_a_gpu(slot) == 0
    if not slot.runs:
        return run.estimate_bytes <= slot.free
    return run.estimate_bytes <= slot.gpu.total_bytes - slot.foreign_bytes


def _most_on_a_gpu(slot: _Slot) -> int:
    """Bytes of other people's processes, if they are worth speaking of."""
    return slot.foreign_bytes if slot.foreign_bytes > FOREIGN_MEMORY_IGNORED_BYTES else 0


# the reasons, in words


def _never(run: WaitingRun, allowed: list[_Slot], slots: list[_Slot]) -> str:
    """Why this machine cannot run it as it is; empty if it can."""
    count = run.gpus_wanted
    if not slots:
        return msg("asks for {count}; this machine has none", count=_gpus(count))
    if run.pinned and len(allowed) < count:
        names = {name for slot in slots for name in slot.names()}
        missing = [name for name in run.pinned if name not in names]
        if missing:
            return msg("pinned to GPU {missing}, which this machine does not have", missing=", ".join(missing))
        return msg("asks for {count} and is pinned to {num_allowed}", count=_gpus(count), num_allowed=len(allowed))
    if len(slots) < count:
        return msg("asks for {count}; this machine has {num_slots}", count=_gpus(count), num_slots=len(slots))
    if run.estimate_bytes is not None:
        large = [slot for slot in allowed if slot.gpu.total_bytes >= run.estimate_bytes]
        if len(large) < count:
            largest = max(slot.gpu.total_bytes for slot in allowed)
            on_each = " on each GPU" if count > 1 else ""
            return msg(
                "needs ~{estimate_bytes} GiB{on_each}, more than the {largest} of the largest GPU",
                estimate_bytes=_gib(run.estimate_bytes),
                on_each=on_each,
                largest=_gib(largest),
            )
    return ""


def _explain(run: WaitingRun, allowed: list[_Slot], fitting: list[_Slot]) -> Wait:
    """Why it cannot start now. A GPU that only lacks memory says more than one that is simply busy."""
    short = [
        slot for slot in allowed if slot.kept_for is None and slot not in fitting and _only_lacks_memory(run, slot)
    ]
    kept = [(slot, slot.kept_for) for slot in allowed if slot.kept_for is not None]
    busy = [slot for slot in allowed if slot.kept_for is None and slot not in fitting and slot not in short]
    parts = []
    if run.gpus_wanted > 1:
        parts.append(
            msg(
                "needs {gpus_wanted} GPUs together, {num_fitting} free",
                gpus_wanted=run.gpus_wanted,
                num_fitting=len(fitting),
            )
        )
    if short:
        best = max(short, key=lambda slot: slot.free)
        parts.append(_memory_reason(run, best))
        kind = WaitKind.MEMORY
    elif kept and not all(slot.runs for slot, _ in kept):
        kind = WaitKind.KEPT
    else:
        kind = WaitKind.BUSY
    if kind is not WaitKind.MEMORY:
        for slot, front in kept[:2]:
            together = (
                msg(", which needs {gpus_wanted} together", gpus_wanted=front.gpus_wanted)
                if front.gpus_wanted > 1
                else ", ahead in the queue"
            )
            parts.append(
                msg(
                    "GPU {id} is kept for run {front_id}{together}",
                    id=slot.gpu.id,
                    front_id=front.id,
                    together=together,
                )
            )
        parts += [msg("GPU {id} is used by run {slot}", id=slot.gpu.id, slot=_runs(slot)) for slot in busy[:2]]
        more = max(len(kept) - 2, 0) + max(len(busy) - 2, 0)
        if more:
            parts.append(msg("{more} more taken", more=_gpus(more)))
    return Wait(run.id, kind, "; ".join(parts))


def _only_lacks_memory(run: WaitingRun, slot: _Slot) -> bool:
    return not slot.runs or (run.share and not slot.exclusive and run.estimate_bytes is not None)


def _memory_reason(run: WaitingRun, slot: _Slot) -> str:
    free = _gib(max(slot.free, 0))
    users = []
    for process in sorted(slot.gpu.foreign, key=lambda process: -(process.memory_bytes or 0))[:2]:
        users.append(f"pid {process.pid}" + (f" of {process.user}" if process.user else ""))
    if slot.runs:
        users.append(f"run {_runs(slot)}")
    by = msg(": used by {users}", users=", ".join(users)) if users else ""
    if run.estimate_bytes is None:
        return msg(
            "nobody knows how much memory it needs, and GPU {id} has {free} GiB free{by}",
            id=slot.gpu.id,
            free=free,
            by=by,
        )
    return msg(
        "needs ~{estimate_bytes} GiB, GPU {id} has {free} free{by}",
        estimate_bytes=_gib(run.estimate_bytes),
        id=slot.gpu.id,
        free=free,
        by=by,
    )


def _dependency_reason(dependency: Dependency) -> str:
    if dependency.state is None:
        return msg("after run {run}, which was deleted", run=dependency.run)
    if dependency.state in ("failed", "stopped", "interrupted"):
        was = "was " if dependency.state != "failed" else ""
        return msg("after run {run}, which {was}{state}", run=dependency.run, was=was, state=dependency.state)
    return msg("after run {run} ({state})", run=dependency.run, state=dependency.state)


def _cpu_reason(state: State, kept_for: int | None) -> str:
    if state.cpu_slots <= 0:
        return "this machine is set to run nothing on its CPU"
    runs = ", ".join(str(run.id) for run in state.active if not run.gpus)
    slots = (
        "the CPU slot is" if state.cpu_slots == 1 else msg("all {cpu_slots} CPU slots are", cpu_slots=state.cpu_slots)
    )
    if kept_for is not None:
        return msg("{slots} taken; run {kept_for} is next", slots=slots, kept_for=kept_for)
    return (
        msg("{slots} used by run {runs}", slots=slots, runs=runs)
        if runs
        else msg("{slots} given to runs ahead in the queue", slots=slots)
    )


def _runs(slot: _Slot) -> str:
    return ", ".join(map(str, slot.runs))


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
