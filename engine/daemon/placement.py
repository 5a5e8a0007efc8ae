"""From the store's rows and the monitor's snapshot to what the scheduler decides on; from a decision to environment.

A GPU has three names: its index as nvidia-smi counts, its UUID, and for a slice `index:slice`. Runs may be pinned to
any; the index is what people read, the UUID what CUDA is given.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.base.engine_folder import EngineState
from engine.base.messages import msg
from engine.base.worker_process import cores, worker_environment
from engine.daemon.scheduler_state import (
    HOST,
    ActiveEngine,
    ActiveRun,
    Dependency,
    ForeignProcess,
    Gpu,
    WaitingRun,
)
from engine.monitor.cuda_visible_devices import environment, visible_gpus
from engine.monitor.samples import GpuSample, RunId, RunSample, Snapshot
from engine.monitor.usage import run_memory
from engine.store.run_records import Run, RunState

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Machine:
    """What runs may be placed on, or why nobody can tell just now."""

    gpus: tuple[Gpu, ...] = ()
    samples: Mapping[str, GpuSample] = field(default_factory=dict)
    """By the id the scheduler knows it by."""
    trouble: str = ""
    """Nothing is placed while the driver does not answer: a run would land on a GPU whose memory nobody knows."""


def machine(snapshot: Snapshot, environ: Mapping[str, str], driver: Path = _DRIVER) -> Machine:
    """The GPUs this user may use and what is free on them. Cards that do not answer are left out."""
    if not snapshot.gpus:
        # A driver that is loaded and tells nothing is a fault of the moment; without one this is a CPU machine.
        return Machine(
            trouble=msg("the GPU driver does not answer: {gpu_problem}", gpu_problem=snapshot.gpu_problem)
            if driver.exists()
            else ""
        )
    ours = visible_gpus(snapshot.gpus, environ).gpus
    answering = [gpu for gpu in ours if not gpu.stale and gpu.memory_free_bytes is not None]
    if ours and not answering:
        return Machine(
            trouble=msg(
                "no GPU answers: {problem}", problem=ours[0].problem or snapshot.gpu_problem or "its figures are old"
            )
        )
    samples = {_id(gpu, snapshot.gpus): gpu for gpu in answering}
    return Machine(tuple(_gpu(name, gpu) for name, gpu in samples.items()), samples)


def _id(gpu: GpuSample, gpus: Sequence[GpuSample]) -> str:
    if gpu.parent is None:
        return str(gpu.index)
    slices = [other.uuid for other in gpus if other.parent == gpu.parent]
    return f"{gpu.index}:{slices.index(gpu.uuid)}"


def _gpu(name: str, gpu: GpuSample) -> Gpu:
    foreign = tuple(
        ForeignProcess(process.pid, process.user, process.memory_bytes)
        for process in gpu.processes or ()
        if process.run is None
    )
    return Gpu(name, gpu.memory_total_bytes or 0, gpu.memory_free_bytes or 0, foreign, (gpu.uuid,))


def waiting_run(run: Run, dependencies: Iterable[tuple[int, RunState | None]] = ()) -> WaitingRun:
    return WaitingRun(
        id=run.id,
        priority=run.priority,
        held=run.held,
        after=tuple(Dependency(run_id, None if state is None else state.value) for run_id, state in dependencies),
        not_before=run.not_before,
        gpus_wanted=run.gpus_wanted,
        pinned=run.gpus_pinned,
        estimate_bytes=run.estimate_bytes,
        share=run.share,
    )


def active_run(run: Run, samples: Mapping[str, GpuSample], loads: Mapping[RunId, RunSample] = {}) -> ActiveRun:
    """A run with a worker, and what it may still allocate: its estimate less what it holds on the fullest card, or of
    the host's memory (`loads`).

    Where the driver does not tell memory by process (some containers), a run that trains is taken to have all of it.
    One that was started by hand is on whatever GPUs its processes are.
    """
    seen = (name for name, gpu in samples.items() if any(process.run == run.id for process in gpu.processes or ()))
    gpus = run.gpus or tuple(seen)
    promised = 0
    if run.estimate_bytes is not None and gpus:
        held = [run_memory(samples[gpu], run.id) for gpu in gpus if gpu in samples]
        measured = [amount for amount in held if amount is not None]
        if measured:
            promised = max(run.estimate_bytes - min(measured), 0)
        elif run.step == 0:
            promised = run.estimate_bytes
    elif run.estimate_bytes is not None and not samples:
        promised = max(run.estimate_bytes - _resident(loads, run.id), 0)
    return ActiveRun(run.id, gpus, promised, run.share, run.estimate_bytes is not None)


def active_engine(
    key: str, state: EngineState, samples: Mapping[str, GpuSample], loads: Mapping[RunId, RunSample]
) -> ActiveEngine:
    """An engine, and what it may still allocate."""
    promised, size = 0, state.estimate_bytes
    if size is not None:
        held = [run_memory(samples[gpu], key) for gpu in state.gpus if gpu in samples]
        taken = max((amount or 0 for amount in held), default=0) if state.gpus else _resident(loads, key)
        promised = max(size - taken, 0)
    return ActiveEngine(key, state.base, state.gpus, promised, size)


def host_memory(snapshot: Snapshot) -> Gpu | None:
    """Where engines are placed on a machine without a GPU: its memory, or what a control group leaves of it."""
    host = snapshot.host
    if host is None or host.memory_bytes is None or host.memory_free_bytes is None:
        return None
    return Gpu(HOST, host.memory_bytes, host.memory_free_bytes)


def _resident(loads: Mapping[RunId, RunSample], name: RunId) -> int:
    load = loads.get(name)
    return 0 if load is None else load.rss_bytes or 0


def run_environment(
    gpus: Sequence[GpuSample], gpus_wanted: int, machine_has_gpus: bool, cpu_slots: int
) -> dict[str, str]:
    """What the worker is started with: exactly its GPUs, or its share of the cores.

    The share depends on the number of slots, not on who runs beside it: the number of threads decides in which order
    sums are formed, and a run must end on the same bits whatever its neighbours do.
    """
    made = worker_environment()
    if gpus:
        return made | environment(gpus)
    if machine_has_gpus and gpus_wanted == 0:
        made["CUDA_VISIBLE_DEVICES"] = ""
    if cpu_slots > 1:
        made["OMP_NUM_THREADS"] = str(max(cores() // cpu_slots, 1))
    return made
