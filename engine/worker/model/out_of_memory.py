"""Whether an error means that memory ran out, whichever library raised it."""

import os

import torch

from engine.monitor.cuda_visible_devices import visible_gpus
from engine.monitor.nvml import DriverUnavailable, Nvml

_CONTEXT_BYTES = 2**30
"""With less than this free, a card may have no room for a CUDA context; one takes 0.3 to 0.7 GiB."""


def is_out_of_memory(error: BaseException) -> bool:
    """torch's CUDA allocator says it by type; the driver, cuBLAS and the CPU allocator by text."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text
        or "CUBLAS_STATUS_ALLOC_FAILED" in text
        or "CUDA error: out of memory" in text  # the driver's own, as when a full card has no room for a context
        or "not enough memory" in text
        # What it says of a card with next to nothing free (H200, driver 580); and of one in exclusive mode that
        # another process uses, however much is free.
        or ("busy or unavailable" in text and _no_room_for_a_context())
    )


def _no_room_for_a_context() -> bool:
    """Whether a card that this process may use has next to no memory free."""
    nvml = Nvml()
    try:
        samples = [nvml.read(device) for device in nvml.devices()]
    except DriverUnavailable:
        return False
    free = [gpu.memory_free_bytes for gpu in visible_gpus(samples, os.environ).gpus]
    return any(size is not None and size < _CONTEXT_BYTES for size in free)
