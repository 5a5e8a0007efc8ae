"""The NVIDIA driver, asked through NVML. The only place that imports pynvml.

Every question is asked by itself, because cards differ in what they answer: a refusal makes one figure `None`, and a
question a card does not support is not put again until the next rescan. Figures that hardly change (names, limits)
are kept; those that block (PCIe throughput is measured by the driver over 20 ms) are asked of one card per round.
Nothing here is guarded against a call that never returns: see `polling`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.base.messages import msg
from engine.monitor.samples import GpuProcess, GpuSample

RESCAN_SECONDS = 30.0
"""How often cards, MIG slices and limits are looked up again, and a missing driver is tried again."""

CALM_SECONDS = 5.0
"""PCIe and ECC figures of one card are not read more often than this."""

NO_LIBRARY = "No NVIDIA driver found (libnvidia-ml.so.1). CPU runs still work."

_THROTTLE_REASONS = (
    (0x002, "set clocks"),
    (0x004, "power cap"),
    (0x008, "hardware slowdown"),
    (0x010, "sync boost"),
    (0x020, "thermal"),
    (0x040, "thermal (hardware)"),
    (0x080, "power brake"),
    (0x100, "display clocks"),
)
"""nvmlClocksEventReason*; 0x1 is 'idle', which holds nothing back."""

_NOT_AVAILABLE = (2**32 - 1, 2**64 - 1)


class DriverUnavailable(Exception):
    """Why no card at all can be asked, in the user's words."""


class _CardLost(Exception):
    """This card answers nothing any more; the others may."""


@dataclass(eq=False)
class Device:
    """A card or slice as NVML knows it, with what has been learned about it."""

    index: int
    handle: Any
    uuid: str
    facts: dict[str, Any] = field(default_factory=dict)
    """Fields of GpuSample that were read once."""
    calm: dict[str, Any] = field(default_factory=dict)
    """Fields of GpuSample that are read now and then."""
    calm_at: float | None = None
    refused: set[str] = field(default_factory=set)
    slices: tuple[str, ...] = ()
    problem: str | None = None


class Nvml:
    """One open connection to the driver. Not for several threads at a time on one device."""

    def __init__(self) -> None:
        self.driver: str | None = None
        self.cuda: str | None = None
        self._nvml: Any = None
        self._devices: list[Device] = []
        self._scanned_at: float | None = None
        self._refusal: str | None = None
        self._calm_round = 0.0

    def devices(self, *, rescan: bool = True) -> list[Device]:
        """Cards, each followed by its slices. Raises DriverUnavailable; asks the driver only every RESCAN_SECONDS."""
        now = time.monotonic()
        if self._scanned_at is None or (rescan and now - self._scanned_at > RESCAN_SECONDS):
            self._scanned_at, self._refusal = now, None
            try:
                self._open()
                self._devices = self._scan()
            except DriverUnavailable as reason:
                self._refusal, self._devices = str(reason), []
        if self._refusal:
            raise DriverUnavailable(self._refusal)
        return self._devices

    def read(self, device: Device) -> GpuSample:
        """What the card tells now; `problem` says why it tells less than usual."""
        if device.handle is None:
            return GpuSample(device.index, device.uuid, taken_at=time.time(), problem=device.problem, **device.facts)
        if self._nvml is None:
            problem = "the connection to the driver was lost"
            return GpuSample(device.index, device.uuid, taken_at=time.time(), problem=problem, **device.facts)
        device.problem = None
        try:
            figures = self._figures(device)
        except _CardLost as reason:
            return GpuSample(device.index, device.uuid, taken_at=time.time(), problem=str(reason), **device.facts)
        return GpuSample(
            device.index, device.uuid, taken_at=time.time(), problem=device.problem, **device.facts, **figures
        )

    # -- the connection ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._nvml is not None:
            return
        try:
            import pynvml  # 25 ms, and only here
        except ImportError:
            raise DriverUnavailable(
                "The package nvidia-ml-py is missing (pip install nvidia-ml-py). Runs still work."
            ) from None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise DriverUnavailable(_why(pynvml, error)) from None
        self._nvml = pynvml
        self.driver = _or_none(pynvml.nvmlSystemGetDriverVersion, pynvml)
        version = _or_none(pynvml.nvmlSystemGetCudaDriverVersion_v2, pynvml)
        self.cuda = f"{version // 1000}.{version % 1000 // 10}" if version else None

    def _close(self) -> None:
        """Forgets a connection the driver has dropped, so that the next scan opens a new one."""
        self._nvml, self._devices, self._scanned_at = None, [], None

    # -- which cards there are -----------------------------------------------------------------------------------

    def _scan(self) -> list[Device]:
        nvml = self._nvml
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            self._close()
            raise DriverUnavailable(_why(nvml, error)) from None
        if count == 0:
            raise DriverUnavailable("The NVIDIA driver is there but shows no GPU. CPU runs still work.")
        earlier = {device.uuid: device for device in self._devices}
        return [device for index in range(count) for device in self._card(index, earlier)]

    def _card(self, index: int, earlier: dict[str, Device]) -> list[Device]:
        nvml = self._nvml
        previous = next((d for d in earlier.values() if d.index == index and not d.facts.get("parent")), None)
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = nvml.nvmlDeviceGetUUID(handle)
        except nvml.NVMLError as error:
            lost = Device(index, None, previous.uuid if previous else f"gpu{index}", previous.facts if previous else {})
            lost.problem = _why_card(nvml, error)
            return [lost]
        card = Device(index, handle, uuid)
        if previous and previous.uuid == uuid:
            card.calm, card.calm_at = previous.calm, previous.calm_at
        try:
            slices = self._slices(card)
            card.facts = self._facts(card)
        except _CardLost as reason:
            card.handle, card.problem = None, str(reason)
            return [card]
        card.slices = tuple(device.uuid for device in slices)
        return [card, *slices]

    def _facts(self, card: Device) -> dict[str, Any]:
        nvml, ask = self._nvml, lambda *question: self._ask(card, *question)
        mig = ask(nvml.nvmlDeviceGetMigMode)
        return {
            "name": ask(nvml.nvmlDeviceGetName),
            "pci_bus": _text(getattr(ask(nvml.nvmlDeviceGetPciInfo), "busId", None)),
            "mig_enabled": None if mig is None else mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
            "power_limit_watts": _over(ask(nvml.nvmlDeviceGetEnforcedPowerLimit), 1000),
            "sm_clock_max_mhz": ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
            "pcie_gen_max": ask(nvml.nvmlDeviceGetMaxPcieLinkGeneration),
            "pcie_width_max": ask(nvml.nvmlDeviceGetMaxPcieLinkWidth),
        }

    def _slices(self, card: Device) -> list[Device]:
        nvml = self._nvml
        mig = self._ask(card, nvml.nvmlDeviceGetMigMode)
        if not mig or mig[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
        slices = []
        for position in range(self._ask(card, nvml.nvmlDeviceGetMaxMigDeviceCount) or 0):
            try:
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, position)
                uuid = nvml.nvmlDeviceGetUUID(handle)
            except nvml.NVMLError:
                continue  # a position without a slice; positions are not packed
            part = Device(card.index, handle, uuid)
            part.facts = {
                "parent": card.uuid,
                "name": self._ask(part, nvml.nvmlDeviceGetName),
                "gpu_instance": self._ask(part, nvml.nvmlDeviceGetGpuInstanceId),
                "compute_instance": self._ask(part, nvml.nvmlDeviceGetComputeInstanceId),
            }
            slices.append(part)
        return slices

    # -- one card's figures --------------------------------------------------------------------------------------

    def _figures(self, device: Device) -> dict[str, Any]:
        nvml, ask = self._nvml, lambda *question: self._ask(device, *question)
        memory = ask(self._memory)
        if device.facts.get("parent"):  # a slice has memory and processes of its own; the rest is the card's
            return {**_memory_figures(memory), "processes": self._processes(device)}
        utilisation = ask(nvml.nvmlDeviceGetUtilizationRates)
        return {
            **_memory_figures(memory),
            "utilisation": _known(getattr(utilisation, "gpu", None)),
            "memory_utilisation": _known(getattr(utilisation, "memory", None)),
            "temperature_c": ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            "power_watts": _over(ask(nvml.nvmlDeviceGetPowerUsage), 1000),
            "sm_clock_mhz": ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            "held_back": _throttle_reasons(ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)),
            "fan_percent": ask(nvml.nvmlDeviceGetFanSpeed),
            "energy_joules": _over(ask(nvml.nvmlDeviceGetTotalEnergyConsumption), 1000),
            "processes": None if device.slices else self._processes(device),
            **self._calm(device),
        }

    def _calm(self, device: Device) -> dict[str, Any]:
        now = time.monotonic()
        if device.calm_at is None or (now - device.calm_at > CALM_SECONDS and now - self._calm_round > 0.5):
            device.calm_at, self._calm_round = now, now
            nvml, ask = self._nvml, lambda *question: self._ask(device, *question)
            volatile = nvml.NVML_VOLATILE_ECC
            device.calm = {
                "pcie_gen": ask(nvml.nvmlDeviceGetCurrPcieLinkGeneration),
                "pcie_width": ask(nvml.nvmlDeviceGetCurrPcieLinkWidth),
                "pcie_tx_bytes_per_s": _times(ask(nvml.nvmlDeviceGetPcieThroughput, nvml.NVML_PCIE_UTIL_TX_BYTES)),
                "pcie_rx_bytes_per_s": _times(ask(nvml.nvmlDeviceGetPcieThroughput, nvml.NVML_PCIE_UTIL_RX_BYTES)),
                "ecc_corrected": ask(nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, volatile),
                "ecc_uncorrected": ask(
                    nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, volatile
                ),
            }
        return device.calm

    def _memory(self, handle: Any) -> Any:
        """Version 2 sets apart what the driver keeps for itself, as nvidia-smi does; drivers before 510 lack it."""
        nvml = self._nvml
        try:
            return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
                raise
            return nvml.nvmlDeviceGetMemoryInfo(handle)

    def _processes(self, device: Device) -> tuple[GpuProcess, ...] | None:
        processes: dict[int, GpuProcess] = {}
        answered = False
        for kind, question in (("compute", "Compute"), ("mps", "MPSCompute"), ("graphics", "Graphics")):
            listed = self._ask(device, self._process_call(f"nvmlDeviceGet{question}RunningProcesses"))
            answered = answered or listed is not None
            for process in listed or ():
                memory = _known(process.usedGpuMemory)
                # one process may be listed as compute and as graphics: the same memory, named twice
                if process.pid and (process.pid not in processes or processes[process.pid].memory_bytes is None):
                    processes[process.pid] = GpuProcess(device.uuid, process.pid, kind, memory)
        return tuple(processes.values()) if answered else None

    def _process_call(self, name: str) -> Callable[[Any], list]:
        """`_v3`, or `_v2` where that is wrong or missing.

        Drivers 535.43 to 535.129 changed the record of `_v3` without a new version, so that every second pid is
        nonsense (XuehaiPan/nvitop#75, NVIDIA/go-nvml#75); drivers before 510 have no `_v3`.
        """
        nvml = self._nvml
        newest, older = getattr(nvml, f"{name}_v3"), getattr(nvml, f"{name}_v2")
        if (self.driver or "").startswith("535."):
            return older

        def call(handle: Any) -> list:
            try:
                return newest(handle)
            except nvml.NVMLError as error:
                if error.value != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
                    raise
                return older(handle)

        call.__name__ = name
        return call

    def _ask(self, device: Device, question: Callable, *words: Any) -> Any:
        """The answer, or None if this card has none."""
        nvml = self._nvml
        name = f"{question.__name__}{words}"
        if name in device.refused:
            return None
        try:
            return question(device.handle, *words)
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
                raise _CardLost(_why_card(nvml, error)) from None
            if error.value in (nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
                self._close()
                raise _CardLost(_why(nvml, error)) from None
            if error.value in (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                nvml.NVML_ERROR_NO_PERMISSION,
                nvml.NVML_ERROR_INVALID_ARGUMENT,
            ):
                device.refused.add(name)
            else:
                device.problem = f"{question.__name__}: {error}"
            return None


def _why(nvml: Any, error: Any) -> str:
    return {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: NO_LIBRARY,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "The NVIDIA driver is installed but not loaded (modprobe nvidia). "
        "CPU runs still work.",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "The NVIDIA driver was updated but the old one is still loaded: "
        "reboot, or reload the nvidia module.",
        nvml.NVML_ERROR_NO_PERMISSION: "No permission to open the NVIDIA driver (/dev/nvidiactl). CPU runs still work.",
    }.get(error.value, msg("The NVIDIA driver does not answer: {error}.", error=error))


def _why_card(nvml: Any, error: Any) -> str:
    return {
        nvml.NVML_ERROR_GPU_IS_LOST: "fell off the bus: needs a reboot (dmesg shows Xid 79)",
        nvml.NVML_ERROR_RESET_REQUIRED: "needs a reset (nvidia-smi --gpu-reset)",
        nvml.NVML_ERROR_NO_PERMISSION: "not allowed to this user",
    }.get(error.value, msg("does not answer: {error}", error=error))


def _or_none(question: Callable, nvml: Any) -> Any:
    try:
        return question()
    except nvml.NVMLError:
        return None


def _memory_figures(memory: Any) -> dict[str, int | None]:
    return {
        "memory_used_bytes": _known(getattr(memory, "used", None)),
        "memory_total_bytes": _known(getattr(memory, "total", None)),
        "memory_reserved_bytes": _known(getattr(memory, "reserved", None)),
    }


def _known(value: int | None) -> int | None:
    """NVML marks "not available" by all bits set."""
    return None if value in _NOT_AVAILABLE else value


def _over(count: int | None, unit: int) -> float | None:
    available = _known(count)
    return None if available is None else available / unit


def _times(kilobytes: int | None) -> int | None:
    available = _known(kilobytes)
    return None if available is None else available * 1024


def _throttle_reasons(bits: int | None) -> tuple[str, ...] | None:
    return None if bits is None else tuple(word for bit, word in _THROTTLE_REASONS if bits & bit)


def _text(raw: bytes | str | None) -> str | None:
    return raw.decode("ascii", "replace") if isinstance(raw, bytes) else raw
