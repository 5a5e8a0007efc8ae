"""What the machine at hand offers a run: its cards, its memory, and what earlier runs on it took."""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.base.errors import EngineError
from engine.base.workspace import Workspace
from engine.models.device_limits import cpu_is_good_at_bfloat16
from engine.monitor.cuda_visible_devices import visible_gpus
from engine.monitor.samples import Snapshot
from engine.plan.gpu_fit import GpuSpec
from engine.plan.memory import EstimateInputs
from engine.plan.throughput import PastRun, correction

_DRIVER_DEVICES = ("/dev/nvidiactl", "/dev/dxg")


@dataclass(frozen=True)
class Hardware:
    cards: tuple[GpuSpec, ...]
    """The GPUs a CUDA program would see, in its order."""
    no_cards: str
    """Why there are none, in one line."""
    memory_bytes: int | None
    """Of the host, or of the control group where that is less."""
    memory_free_bytes: int | None
    card_watts: float | None
    """Power limit of the first card."""
    bfloat16: bool
    """The device a run would take is good at bfloat16."""
    gpu_names: tuple[str, ...] = ()
    """All by which a run may be pinned to a GPU: indices and UUIDs, those of slices too."""
    memory_owner: str = ""
    """Who limits it, such as `this container`; empty where it is all that the machine has."""

    @property
    def device(self) -> str:
        return "cuda" if self.cards else "cpu"

    @property
    def device_name(self) -> str:
        """As a run's journal has it."""
        return self.cards[0].name if self.cards else "cpu"


def detect_hardware(workspace: Workspace) -> Hardware:
    """One round of the monitor: some hundredths of a second, two seconds at most where a driver hangs."""
    from engine.monitor.monitor import read_once  # psutil and pynvml: 40 ms

    return hardware_of(read_once(workspace.root, seconds=2.0))


def queue_device(workspace: Workspace) -> str:
    """`Hardware.device_name` as a run that is queued here will find it, at once; 'GPU' where no name is known. A driver
    is not asked, since it may hang: its device is looked for (in WSL it is called dxg), and the GPUs that a daemon has
    seen."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, LookupError):
        if gpus := json.loads(workspace.machine_state.read_bytes()).get("gpus"):
            return str(gpus[0].get("name") or "GPU")
    return "GPU" if any(map(os.path.exists, _DRIVER_DEVICES)) else "cpu"


def queue_inputs(device_name: str, method: str, past: Sequence[PastRun]) -> EstimateInputs:
    """What the memory of a run that is queued here depends on, beside its settings."""
    factor, _ = correction(past, method, device_name)
    if device_name == "cpu":
        return EstimateInputs(device="cpu", bfloat16=cpu_is_good_at_bfloat16(), correction=factor)
    return EstimateInputs(bfloat16=card_is_good_at_bfloat16(device_name), correction=factor)


def hardware_of(snapshot: Snapshot | None) -> Hardware:
    """What the monitor has read, as a program started here would see it; None: it has read nothing yet."""
    if snapshot is None:
        return Hardware((), "the GPUs of this machine are not read yet", None, None, None, cpu_is_good_at_bfloat16())
    seen = visible_gpus(snapshot.gpus, os.environ)
    cards = tuple(
        GpuSpec(gpu.name or f"GPU {gpu.index}", gpu.memory_total_bytes, gpu.memory_free_bytes)
        for gpu in seen.gpus
        if gpu.memory_total_bytes
    )
    why = snapshot.gpu_problem or seen.doubt or ("" if cards else "CUDA_VISIBLE_DEVICES hides every GPU")
    host = snapshot.host
    total, free, owner = (host.memory_bytes, host.memory_free_bytes, host.memory_limit_owner) if host else (None,) * 3
    watts = next((gpu.power_limit_watts for gpu in seen.gpus if gpu.power_limit_watts), None)
    narrow = card_is_good_at_bfloat16(cards[0].name) if cards else cpu_is_good_at_bfloat16()
    names = tuple(str(gpu.index) for gpu in snapshot.gpus if gpu.parent is None)
    names += tuple(gpu.uuid for gpu in snapshot.gpus)
    return Hardware(cards, why, total, free, watts, narrow, names, owner or "")


_BEFORE_AMPERE = re.compile(r"\b(T4|V100S?|P100|P40|P4|M60|K80|GTX|TITAN|RTX 20\d\d|QUADRO (RTX|P\d+|GV100))\b")


def card_is_good_at_bfloat16(name: str) -> bool:
    """Compute capability 8.0, Ampere, and above; earlier cards by their names: NVML is asked no more."""
    return not _BEFORE_AMPERE.search(name.upper())


def past_runs(workspace: Workspace) -> list[PastRun]:
    """Earlier runs of this workspace; none where its database cannot be read now."""
    from engine.store.connect import reader
    from engine.store.past_runs import past_runs

    if not workspace.database.exists():
        return []
    with contextlib.suppress(EngineError), contextlib.closing(reader(workspace.database)) as conn:
        return [
            PastRun(run.model, run.method, run.tokens_per_second, run.device, run.predicted_bytes, run.measured_bytes)
            for run in past_runs(conn)
        ]
    return []
