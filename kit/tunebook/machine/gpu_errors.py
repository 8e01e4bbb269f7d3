"""What an error of MLX says went wrong on a GPU: memory ran out, the system took the GPU away, or its driver failed.

MLX (0.32) raises RuntimeError for all of it, with the driver's words. Metal's codes are looked for beside its words,
which are in the language of the system (mlx/backend/metal/device.cpp prints localizedDescription).
"""

from typing import Literal

GpuFault = Literal["memory", "watchdog", "buffers", "driver"]

# In the order they are looked for: the limit of buffers is reported by the allocator, as a lack of memory is.
_SAID: dict[GpuFault, tuple[str, ...]] = {
    "watchdog": (
        "kIOGPUCommandBufferCallbackErrorImpactingInteractivity",
        "kIOGPUCommandBufferCallbackErrorTimeout",
        "kIOGPUCommandBufferCallbackErrorHang",
    ),
    "buffers": ("Resource limit",),  # "[metal::malloc] Resource limit (499000) exceeded."
    "memory": (
        "kIOGPUCommandBufferCallbackErrorOutOfMemory",
        "Insufficient Memory",  # the same in English
        "[metal::malloc]",  # a buffer larger than Metal allows
        "Unable to allocate",  # [malloc], [malloc_or_wait]
        "out of memory",  # CUDA
    ),
    "driver": ("kIOGPUCommandBufferCallbackError", "Command buffer execution failed", "CUDA error", "cudaError"),
}


def gpu_fault(error: BaseException) -> GpuFault | None:
    """What kind of failure an error is; None for one that is no failure of a GPU or of memory.

    On MLX's CPU build a process that asks for too much memory is killed instead.
    """
    return fault_in(str(error)) if isinstance(error, RuntimeError) else None


def fault_in(said: str) -> GpuFault | None:
    """The same of what MLX or a driver said, as a process that was aborted leaves it behind."""
    return next((fault for fault, words in _SAID.items() if any(word in said for word in words)), None)
