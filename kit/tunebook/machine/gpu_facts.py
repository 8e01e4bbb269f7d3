"""What a report says of a machine, and nothing of whoever uses it: versions, chip, limits, the watchdog's variable.

Nothing is measured here. On a GPU one allocation beyond every limit is tried, for MLX has to refuse it in words the kit
knows.
"""

import os
import platform
import re
import socket
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .gpu_errors import GpuFault, gpu_fault
from .runtime import backend, cores, device_name, memory, operating_system, ram_gb

PACKAGES = ("tunebook", "mlx", "mlx-metal", "mlx-cpu", "mlx-lm", "mlx-vlm", "numpy", "transformers")
# The entries of MLX's device_info that tell chips apart. Others, such as a card's uuid, tell machines apart.
SHOWN_OF_A_DEVICE = (
    "architecture",
    "compute_capability_major",
    "compute_capability_minor",
    "max_buffer_length",  # bytes
    "max_recommended_working_set_size",  # bytes
    "memory_size",  # bytes
    "resource_limit",  # buffers
    "total_memory",  # bytes
)
WATCHDOG = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"  # 1 has macOS wait longer for a GPU that keeps its display waiting
BEYOND = (2**20, 2**30)  # the shape of a petabyte
PATH = r"(?:~|\b[A-Za-z]:)?(?:[/\\][\w.@+ -]*\w){2,}[/\\]?"  # "/Users/ada/notebooks"; one slash alone is no path


def gpu_facts() -> dict[str, Any]:
    """Plain values for JSON: `versions`, `chip`, `limits` and `watchdog_relaxed`."""
    import mlx.core as mx

    limit_gb = memory().limit_gb
    info = mx.device_info()
    return {
        "versions": {
            "system": re.sub(
                r"^(Linux [\d.]+)[^ ,]*", r"\1", operating_system()
            ),  # a kernel's suffix may name its owner
            "python": platform.python_version(),
            **{name: found for name in PACKAGES if (found := _version(name))},
        },
        "chip": {
            "backend": backend(),
            "name": device_name(),
            "is_virtual": "Paravirtual" in device_name(),  # "Apple Paravirtual device": in a virtual machine
            "cores": cores(),
            "ram_gb": round(ram_gb(), 1),
        },
        "limits": {
            "usable_gb": None if limit_gb is None else round(limit_gb, 2),
            **{key: info[key] for key in SHOWN_OF_A_DEVICE if key in info},
        },
        "watchdog_relaxed": os.environ.get(WATCHDOG) == "1",
    }


def refused_allocation() -> dict[str, Any]:
    """What came of asking the GPU for a petabyte: `tried`, whether it was `refused`, and the fault that was `known`.

    Not tried on the CPU: there MLX (0.32) has no limit, and a process that cannot have its memory ends.
    """
    if backend() == "cpu":
        return {"tried": False, "refused": None, "known": None}
    import mlx.core as mx

    refused, known = asked(lambda: mx.eval(mx.ones(BEYOND, mx.uint8)))
    return {"tried": True, "refused": refused, "known": known}


def asked(allocate: Callable[[], None]) -> tuple[bool, GpuFault | None]:
    """(whether `allocate()` raised what MLX raises, the fault the kit takes it for)."""
    try:
        allocate()
    except RuntimeError as error:
        return True, gpu_fault(error)
    return False, None


def without_names(value: Any) -> Any:
    """Plain `value`, with "(left out)" for paths and for the user's and the host's name in every string of it."""
    if isinstance(value, dict):
        return {key: without_names(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_names(inner) for inner in value]
    return _names().sub("(left out)", value) if isinstance(value, str) else value


def _names() -> re.Pattern[str]:
    host = socket.gethostname()
    names = {Path.home().name, os.environ.get("USER", ""), os.environ.get("LOGNAME", ""), host, host.partition(".")[0]}
    words = "|".join(rf"\b{re.escape(name)}\b" for name in sorted(names, key=len, reverse=True) if name)
    return re.compile(rf"{PATH}|{words}" if words else PATH)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
