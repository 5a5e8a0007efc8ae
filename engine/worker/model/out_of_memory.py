"""Whether an error means that memory ran out, whichever library raised it."""

import torch


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
    )
