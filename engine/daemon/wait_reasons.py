"""Why a run or an engine waits, in words."""

from engine.base.messages import msg
from engine.base.units import GIB
from engine.daemon.scheduler_state import Dependency, Slot, State, Wait, WaitingRun, WaitKind


def never_reason(run: WaitingRun, allowed: list[Slot], slots: list[Slot]) -> str:
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
                estimate_bytes=gib(run.estimate_bytes),
                on_each=on_each,
                largest=gib(largest),
            )
    return ""


def explain(run: WaitingRun, allowed: list[Slot], fitting: list[Slot]) -> Wait:
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
        parts.append(memory_reason(run.estimate_bytes, best))
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


def _only_lacks_memory(run: WaitingRun, slot: Slot) -> bool:
    return not slot.runs or (run.share and not slot.exclusive and run.estimate_bytes is not None)


def memory_reason(estimate_bytes: int | None, slot: Slot) -> str:
    free = gib(max(slot.free, 0))
    users = []
    for process in sorted(slot.gpu.foreign, key=lambda process: -(process.memory_bytes or 0))[:2]:
        users.append(f"pid {process.pid}" + (f" of {process.user}" if process.user else ""))
    if slot.runs:
        users.append(f"run {_runs(slot)}")
    users += [msg("the server's model {base}", base=engine.base) for engine in slot.engines]
    by = msg(": used by {users}", users=", ".join(users)) if users else ""
    if estimate_bytes is None:
        return msg(
            "nobody knows how much memory it needs, and {device_name} has {free} GiB free{by}",
            device_name=slot.name,
            free=free,
            by=by,
        )
    return msg(
        "needs ~{estimate_bytes} GiB, {device_name} has {free} free{by}",
        estimate_bytes=gib(estimate_bytes),
        device_name=slot.name,
        free=free,
        by=by,
    )


def dependency_reason(dependency: Dependency) -> str:
    if dependency.state is None:
        return msg("after run {run}, which was deleted", run=dependency.run)
    if dependency.state in ("failed", "stopped", "interrupted"):
        was = "was " if dependency.state != "failed" else ""
        return msg("after run {run}, which {was}{state}", run=dependency.run, was=was, state=dependency.state)
    return msg("after run {run} ({state})", run=dependency.run, state=dependency.state)


def cpu_reason(state: State, kept_for: int | None) -> str:
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


def _runs(slot: Slot) -> str:
    return ", ".join(map(str, slot.runs))


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def gib(size: int) -> str:
    return f"{size / GIB:.1f}"
