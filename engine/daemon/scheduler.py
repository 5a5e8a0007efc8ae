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
* An engine, which answers for the server, takes memory only: beside any run, by what each needs at most. One that is in
  the way of a run, or of another engine, is told to give way, and is placed behind that run the next time. On a machine
  without a GPU engines are placed in its memory; a run there waits for nothing but engines that give way.
"""

from engine.base.messages import msg
from engine.base.units import duration
from engine.daemon.scheduler_state import (
    HOST,
    ActiveEngine,
    Decision,
    GiveWay,
    Slot,
    Start,
    StartEngine,
    State,
    Wait,
    WaitEngine,
    WaitingEngine,
    WaitingRun,
    WaitKind,
)
from engine.daemon.wait_reasons import cpu_reason, dependency_reason, explain, gib, memory_reason, never_reason


def decide(state: State) -> list[Decision]:
    """One decision for each waiting run, in the order in which they take their turn, and for each wanted engine; and
    which engines are to give way."""
    slots, host = _slots(state), _host(state)
    places = slots or ([host] if host else [])
    queued = {run.id for run in state.waiting}
    decisions = [d for engine in state.wanted if engine.behind not in queued for d in _place_engine(engine, places)]
    cpu_free = state.cpu_slots - sum(not run.gpus for run in state.active)
    cpu_kept_for: int | None = None
    for run in sorted(state.waiting, key=lambda run: -run.priority):  # stable: the queue's order within a priority
        blocked = _blocked(run, state)
        if blocked:
            decisions.append(blocked)
        elif run.gpus_wanted == 0 or (not slots and run.gpus_wanted == 1 and not run.pinned):
            if cpu_free > 0:
                cpu_free -= 1
                decisions += _start_on_cpu(run, host)
                continue
            decisions.append(Wait(run.id, WaitKind.BUSY, cpu_reason(state, cpu_kept_for)))
            cpu_kept_for = cpu_kept_for or run.id
        else:
            decisions += _place(run, slots)
    decisions += [d for engine in state.wanted if engine.behind in queued for d in _place_engine(engine, places)]
    return decisions


def _slots(state: State) -> list[Slot]:
    slots = [Slot(gpu, gpu.free_bytes) for gpu in state.gpus]
    for run in state.active:
        for slot in slots:
            if not set(run.gpus).isdisjoint(slot.names()):
                slot.free -= run.promised_bytes
                slot.runs.append(run.id)
                slot.exclusive |= not run.share
                slot.known &= run.known
    for engine in state.engines:
        for slot in slots:
            if not set(engine.gpus).isdisjoint(slot.names()):
                slot.free -= engine.promised_bytes
                slot.engines.append(engine)
    return slots


def _host(state: State) -> Slot | None:
    if state.gpus or state.host is None:
        return None
    host = Slot(state.host, state.host.free_bytes)
    host.runs = [run.id for run in state.active if not run.gpus]
    host.engines = [engine for engine in state.engines if not engine.gpus]
    host.free -= sum(run.promised_bytes for run in state.active if not run.gpus)
    host.free -= sum(engine.promised_bytes for engine in state.engines if not engine.gpus)
    return host


def _start_on_cpu(run: WaitingRun, host: Slot | None) -> list[Decision]:
    """Start the run in a free CPU slot, once engines that hold the memory it needs have left."""
    if host is None:
        return [Start(run.id)]
    needed = run.estimate_bytes or 0
    if needed > host.free and host.engines:
        ways = _give_ways(host, needed - host.free, run.id)
        return [*ways, Wait(run.id, WaitKind.MEMORY, memory_reason(needed, host))]
    host.free -= needed
    host.runs.append(run.id)
    return [Start(run.id)]


def _give_ways(slot: Slot, needed: int | None, run: int | None) -> list[Decision]:
    """Of the engines on it as many as free so much; None: all."""
    ways: list[Decision] = []
    for engine in slot.engines:
        if isinstance(engine, ActiveEngine) and (needed is None or needed > 0):
            ways.append(GiveWay(engine.key, run))
            needed = None if needed is None or engine.estimate_bytes is None else needed - engine.estimate_bytes
    return ways


def _place_engine(engine: WaitingEngine, places: list[Slot]) -> list[Decision]:
    """Start the engine where its memory is free, or say what it waits for."""
    if not places:
        return [StartEngine(engine.key)]
    size = engine.estimate_bytes
    largest = max(places, key=lambda slot: slot.gpu.total_bytes)
    if size is not None and size > largest.gpu.total_bytes:
        reason = msg(
            "needs ~{size} GiB, more than the {total} of {device_name}",
            size=gib(size),
            total=gib(largest.gpu.total_bytes),
            device_name="this machine" if largest.gpu.id == HOST else "the largest GPU",
        )
        return [WaitEngine(engine.key, reason)]
    fitting = [slot for slot in places if slot.kept_for is None and _has_room(engine, slot)]
    if fitting:
        slot = min(fitting, key=lambda slot: (len(slot.runs), len(slot.engines), slot.foreign_bytes, -slot.free))
        slot.free -= size or 0
        slot.engines.append(engine)
        return [StartEngine(engine.key, () if slot.gpu.id == HOST else (slot.gpu.id,))]
    best = max(places, key=lambda slot: slot.free + slot.engine_bytes)
    ways = []
    if not best.runs or (size is not None and best.known and size <= best.free + best.engine_bytes):
        ways = _give_ways(best, None if size is None else size - best.free, None)
    return [*ways, WaitEngine(engine.key, msg("waits for room: {reason}", reason=memory_reason(size, best)))]


def _has_room(engine: WaitingEngine, slot: Slot) -> bool:
    if engine.estimate_bytes is None:
        return slot.gpu.id == HOST or not (slot.runs or slot.engines or slot.others_bytes)
    return slot.known and engine.estimate_bytes <= slot.free


def _blocked(run: WaitingRun, state: State) -> Wait | None:
    """What keeps a run from starting whatever the machine."""
    if run.held:
        return Wait(run.id, WaitKind.HELD, "held by you")
    unfinished = [dependency for dependency in run.after if dependency.state != "done"]
    if unfinished:
        return Wait(run.id, WaitKind.AFTER, "; ".join(map(dependency_reason, unfinished)))
    if run.not_before is not None and run.not_before > state.now:
        return Wait(
            run.id,
            WaitKind.LATER,
            msg("tries again in {not_before}", not_before=duration(max(run.not_before - state.now, 1.0))),
        )
    if state.disk_full:
        return Wait(run.id, WaitKind.DISK, state.disk_full)
    return None


def _place(run: WaitingRun, slots: list[Slot]) -> list[Decision]:
    """Start the run on the best GPUs there are, or keep its place and say what it waits for."""
    count = run.gpus_wanted
    allowed = [slot for slot in slots if not run.pinned or not set(run.pinned).isdisjoint(slot.names())]
    never = never_reason(run, allowed, slots)
    if never:
        return [Wait(run.id, WaitKind.NEVER, never)]
    fitting = [slot for slot in allowed if slot.kept_for is None and _fits_on(run, slot)]
    if len(fitting) >= count:
        chosen = sorted(
            fitting,
            key=lambda slot: (len(slot.runs), len(slot.engines), slot.others_bytes, slot.gpu.total_bytes),
        )[:count]
        for slot in chosen:
            slot.free -= run.estimate_bytes or 0
            slot.runs.append(run.id)
            slot.exclusive |= not run.share or run.estimate_bytes is None  # what nobody knows leaves room for nobody
            slot.known &= run.estimate_bytes is not None
        return [Start(run.id, tuple(slot.gpu.id for slot in slots if slot in chosen))]
    wait = explain(run, allowed, fitting)
    behind_engines = [
        slot
        for slot in allowed
        if slot.kept_for is None and slot not in fitting and slot.engines and _fits_on(run, slot, engines_leave=True)
    ][: count - len(fitting)]
    if len(fitting) + len(behind_engines) == count:
        ways: list[Decision] = []
        for slot in behind_engines:
            ways += _give_ways(slot, None if run.estimate_bytes is None else run.estimate_bytes - slot.free, run.id)
        for slot in (*fitting, *behind_engines):
            slot.kept_for = run
        return [*ways, wait]
    keepable = [slot for slot in allowed if slot.kept_for is None and _will_fit(run, slot)]
    if len(keepable) >= count:
        keepable.sort(key=lambda slot: (slot not in fitting, len(slot.runs), slot.others_bytes))
        for slot in keepable[:count]:
            slot.kept_for = run
    return [wait]


def _fits_on(run: WaitingRun, slot: Slot, engines_leave: bool = False) -> bool:
    """Whether the run may start on this GPU now, or once the engines on it have left."""
    if slot.runs and (slot.exclusive or not run.share or run.estimate_bytes is None):
        return False
    if run.estimate_bytes is None:
        return slot.others_bytes == 0 and (engines_leave or not slot.engines)
    return run.estimate_bytes <= slot.free + (slot.engine_bytes if engines_leave else 0)


def _will_fit(run: WaitingRun, slot: Slot) -> bool:
    """Whether it may once our own runs on this GPU have ended, others' processes staying as they are."""
    if run.estimate_bytes is None:
        return slot.others_bytes == 0
    if not slot.runs:
        return run.estimate_bytes <= slot.free + slot.engine_bytes
    return run.estimate_bytes <= slot.gpu.total_bytes - slot.foreign_bytes
