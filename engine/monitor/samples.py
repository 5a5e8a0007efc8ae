"""Frozen values the monitor hands out.

`None` means "this card, driver or system does not tell". It is never replaced by 0: a fan that is not there
and a fan that stands still are different news.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

STALE_SECONDS = 3.0
"""A figure older than three rounds is shown as stale: one late round is noise, three are a fault."""

RunId = int | str


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One process that holds memory on one GPU or MIG slice."""

    gpu: str
    """UUID of the GPU, or of the MIG slice the process runs in."""
    pid: int
    kind: str
    """'compute', 'graphics' or 'mps'."""
    memory_bytes: int | None
    """None where the driver does not account per process (WSL, some vGPU and containers)."""
    identified: bool = True
    """False when the pid may belong to another pid namespace, so that nothing more can be said about it."""
    user: str | None = None
    command: str | None = None
    started_at: float | None = None
    lineage: tuple[tuple[int, float], ...] = ()
    """(pid, start time) of the process and its ancestors, nearest first, as they were when it was first seen."""
    session: tuple[int, float | None] | None = None
    """The session leader's pid and start time (None when it is dead): a worker leads its own session, and a session
    outlives the parents in it."""
    run: RunId | None = None

    @property
    def owner(self) -> str:
        """'run', 'not ours' or 'unknown'."""
        if self.run is not None:
            return "run"
        return "not ours" if self.identified else "unknown"


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One GPU, or one MIG slice of it, at one moment."""

    index: int
    """NVML's index of the physical GPU, which is the order of PCI bus addresses and that of nvidia-smi."""
    uuid: str
    name: str | None = None
    pci_bus: str | None = None
    parent: str | None = None
    """For a MIG slice the UUID of its GPU; None for a whole GPU."""
    gpu_instance: int | None = None
    compute_instance: int | None = None
    mig_enabled: bool | None = None
    """True when the GPU is cut into slices: CUDA then works on the slices only."""

    taken_at: float = 0.0
    """UTC epoch seconds when the figures were read."""
    age_seconds: float | None = None
    """How old the figures were when handed out; None when none were ever read."""
    problem: str | None = None
    """Why figures are missing or old, in words; None when all is well."""

    utilisation: float | None = None
    """Percent of the last sample period in which some kernel ran; it does not say how full the kernel was."""
    memory_utilisation: float | None = None
    """Percent of the last sample period in which memory was read or written."""
    memory_used_bytes: int | None = None
    """Without what the driver keeps for itself, as nvidia-smi counts."""
    memory_reserved_bytes: int | None = None
    """Kept by driver and firmware; nobody can use it. None before driver 510, where it is inside `used`."""
    memory_total_bytes: int | None = None
    temperature_c: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    memory_clock_mhz: int | None = None
    held_back: tuple[str, ...] | None = None
    """Why the clocks are below what they could be: 'thermal', 'power cap', ...; empty when nothing holds them."""
    fan_percent: float | None = None
    pcie_gen: int | None = None
    pcie_gen_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    pcie_tx_bytes_per_s: int | None = None
    pcie_rx_bytes_per_s: int | None = None
    ecc_corrected: int | None = None
    """Since the driver was loaded."""
    ecc_uncorrected: int | None = None
    energy_joules: float | None = None
    """Counter since the driver was loaded (Volta and later); only differences mean something."""
    processes: tuple[GpuProcess, ...] | None = None

    @property
    def stale(self) -> bool:
        return self.age_seconds is None or self.age_seconds > STALE_SECONDS

    @property
    def memory_free_bytes(self) -> int | None:
        if self.memory_total_bytes is None or self.memory_used_bytes is None:
            return None
        return self.memory_total_bytes - self.memory_used_bytes - (self.memory_reserved_bytes or 0)


@dataclass(frozen=True, slots=True)
class HostSample:
    """Processor and memory of the machine."""

    taken_at: float
    age_seconds: float | None = None
    cpu_percent: float | None = None
    """Of all cores together, 0 to 100; None on the first look, which has nothing to compare with."""
    cpu_count: int | None = None
    load_1min: float | None = None
    memory_used_bytes: int | None = None
    """Total less available: what cannot be had without swapping."""
    memory_total_bytes: int | None = None
    memory_limit_bytes: int | None = None
    """The least limit of this process's control groups where it is below the machine's memory (containers, Slurm)."""
    swap_used_bytes: int | None = None
    swap_total_bytes: int | None = None
    memory_limit_owner: str | None = None
    """Who set it, such as `this container`."""
    memory_limit_used_bytes: int | None = None
    """By all processes it holds for."""
    memory_free_bytes: int | None = None
    """What a process here may still take: what is available, or less where a limit leaves less."""

    @property
    def memory_bytes(self) -> int | None:
        """What the processes here may have in all."""
        return self.memory_limit_bytes or self.memory_total_bytes

    @property
    def stale(self) -> bool:
        return self.age_seconds is None or self.age_seconds > STALE_SECONDS


@dataclass(frozen=True, slots=True)
class DiskSample:
    """The disk the workspace lies on."""

    path: str
    taken_at: float
    age_seconds: float | None = None
    device: str | None = None
    """Kernel name such as 'nvme0n1p2'; None for a network or overlay mount, which has no rates."""
    free_bytes: int | None = None
    """What this user may still write (less than root's)."""
    total_bytes: int | None = None
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None

    @property
    def stale(self) -> bool:
        return self.age_seconds is None or self.age_seconds > STALE_SECONDS


@dataclass(frozen=True, slots=True)
class RunSample:
    """What the processes of one run take from the host."""

    run: RunId
    taken_at: float
    processes: int
    cpu_percent: float | None = None
    """Of one core: 250 is two and a half cores."""
    rss_bytes: int | None = None
    """Resident memory added up; pages shared between processes are counted once for each."""
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the monitor knows at one moment."""

    taken_at: float
    gpus: tuple[GpuSample, ...] = ()
    """Whole GPUs in NVML order, each followed by its MIG slices."""
    gpu_problem: str | None = None
    """One line that says why there are no GPUs, or why they do not answer."""
    driver: str | None = None
    cuda: str | None = None
    """Newest CUDA version the driver supports, such as '12.8'."""
    host: HostSample | None = None
    disk: DiskSample | None = None
    runs: Mapping[RunId, RunSample] = field(default_factory=dict)


def as_plain(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as JSON has it, with what follows from it: which figures are stale, whose each process is."""
    plain = asdict(snapshot)
    for gpu, sample in zip(plain["gpus"], snapshot.gpus, strict=True):
        gpu["stale"] = sample.stale
        for process, named in zip(gpu["processes"] or (), sample.processes or (), strict=True):
            process["owner"] = named.owner
    return plain
