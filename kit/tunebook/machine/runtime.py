"""What machine this is: the MLX backend, its memory, the chip, and the folder the kit may keep files in.

Other wings ask it instead of `sys.platform`. Nothing here changes the process's state
but `reset_peak_memory` and `memory_for_training`. The fast BLAS has a file of its own (`blas.py`), and so has the
check-up (`doctor.py`).
"""

import ctypes
import os
import platform
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from .private import FOLDER_MODE, make_private_folder

if TYPE_CHECKING:  # MLX may only be loaded after the BLAS (blas.py), which asks this file for its cache folder
    import mlx.core as mx

T = TypeVar("T")
Backend = Literal["metal", "cuda", "cpu"]

RAM_SHARE = 0.75  # of the machine's memory, for a run on the CPU; about what Metal recommends of what it shares
CACHE_SHARE = 0.25  # of a GPU's memory: freed memory MLX may keep while training

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h


@dataclass(frozen=True, kw_only=True)
class Memory:
    """MLX's memory of this process, in GB (1e9 bytes)."""

    active_gb: float  # held by live arrays
    cache_gb: float  # freed, kept by MLX for reuse
    peak_gb: float  # the highest active_gb since the start or the last reset_peak_memory
    limit_gb: float | None  # what the GPU can use well; None on the CPU, where MLX names no limit


def backend() -> Backend:
    """Where MLX computes by default: an Apple GPU, an NVIDIA GPU or the CPU."""
    import mlx.core as mx

    if mx.default_device().type != mx.DeviceType.gpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def default_dtype(checkpoint_dtype: "mx.Dtype") -> "mx.Dtype":
    """The dtype to hold weights in: the checkpoint's own on a GPU, float32 on the CPU.

    MLX's CPU build has no fast half-precision product: bf16 stays at 2-3 GFLOP/s where fp32 reaches 100.
    """
    import mlx.core as mx

    return mx.float32 if backend() == "cpu" else checkpoint_dtype


def product_rounding(dtype: "mx.Dtype") -> float:
    """How far, relative, a number may be rounded that goes into a product of `dtype`.

    Its epsilon; but on a GPU products of float32 are taken with 10 bits where the chip has units for that (TF32: MLX's
    default on an M5 and on NVIDIA's), and no test of the kit may call a sound model wrong for it.
    """
    import mlx.core as mx

    return 2.0**-10 if dtype == mx.float32 and backend() != "cpu" else float(mx.finfo(dtype).eps)


def compiled_on_a_gpu(function: Callable[..., T]) -> Callable[..., T]:
    """`function` of trees of arrays, with what is element-wise in it fused where a launch costs something: on a GPU.

    On the CPU it is given back as it is: there it would need a C++ compiler, and a second for each shape.
    """
    import mlx.core as mx

    return function if backend() == "cpu" else mx.compile(function)


def memory() -> Memory:
    """What MLX holds of this process at this moment, keeps for reuse and held at most; GB of 1e9 bytes."""
    import mlx.core as mx

    return Memory(
        active_gb=mx.get_active_memory() / 1e9,
        cache_gb=mx.get_cache_memory() / 1e9,
        peak_gb=mx.get_peak_memory() / 1e9,
        limit_gb=_device_limit_gb(),
    )


def training_limit_gb() -> float:
    """GB (1e9 bytes) a run should stay below: what the GPU can use well, or RAM_SHARE of what the machine has."""
    return _device_limit_gb() or RAM_SHARE * ram_gb()


def reset_peak_memory() -> None:
    """Start counting `peak_gb` anew."""
    import mlx.core as mx

    mx.reset_peak_memory()


@contextmanager
def memory_for_training() -> Iterator[None]:
    """Set memory limits that suit a run, and put them back when the block ends.

    On Metal as much as the chip recommends is wired, so that the system does not page it out. On a GPU what MLX keeps
    of freed memory is held to a part of the whole; the batches of a run differ in shape, and it could keep them all.
    MLX's CPU build leaves the keeping to the C library, which is told to keep more.
    """
    if backend() == "cpu":
        with _pages_kept():
            yield
        return
    with _gpu_limits():
        yield


@contextmanager
def _gpu_limits() -> Iterator[None]:
    import mlx.core as mx

    limit = _device_limit_gb()
    if limit is None:
        yield
        return
    size = int(limit * 1e9)
    wired = mx.set_wired_limit(size) if backend() == "metal" else None
    cached = mx.set_cache_limit(int(size * CACHE_SHARE))
    try:
        yield
    finally:
        mx.set_cache_limit(cached)
        if wired is not None:
            mx.synchronize()  # the limit must not change under work in flight (mlx-lm 0.32, generate.wired_limit)
            mx.set_wired_limit(wired)


@contextmanager
def _pages_kept() -> Iterator[None]:
    """Have glibc keep the pages of freed arrays until the block ends, and use them again.

    By default it hands every large array back to the kernel, which clears its pages anew for the next: up to a tenth
    of the time of a step. Elsewhere nothing is changed.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the most glibc takes
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)  # glibc's own values (malloc.h)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 * 1024)
        libc.malloc_trim(0)


def device_name() -> str:
    """The chip MLX computes on, as its maker calls it: "Apple M3 Max", "NVIDIA H200", "AMD EPYC"."""
    import mlx.core as mx

    return str(mx.device_info()["device_name"])


def is_apple_chip_under_rosetta() -> bool:
    """True for an Intel Python on Apple silicon, which can never load MLX."""
    if sys.platform != "darwin" or platform.machine() != "x86_64":
        return False
    answer = subprocess.run(["sysctl", "-in", "hw.optional.arm64"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == "1"


def operating_system() -> str:
    """Name and version: "macOS 15.2 (arm64)", "Linux 6.1, glibc 2.36 (x86_64)"."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} ({platform.machine()})"
    library, version = platform.libc_ver()
    return f"{platform.system()} {platform.release()}, {library} {version} ({platform.machine()})"


@cache
def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def has_slow_exponentials() -> bool:
    """Whether MLX computes here on x86, where its CPU build (0.32) has no vector instructions for an exponential."""
    return backend() == "cpu" and platform.machine() in ("x86_64", "AMD64")


def ram_gb() -> float:
    """The machine's memory, in GB (1e9 bytes); on Apple silicon CPU and GPU share it."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def cache_folder() -> Path:
    """The folder for files the kit can make or download again; it exists and can be written to.

    TUNEBOOK_CACHE if set, else the platform's place for caches. Where the home is read-only, a private folder below
    the system's temporary one. It may hold what a person's rows were made into, so but for a TUNEBOOK_CACHE that was
    there before its owner alone can read it. Raises OSError when TUNEBOOK_CACHE or that private folder cannot be used.
    """
    if chosen := os.environ.get("TUNEBOOK_CACHE"):
        return _writable(Path(chosen).expanduser())
    if sys.platform == "darwin":
        usual = Path.home() / "Library" / "Caches"
    else:
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        folder = _writable(usual / "tunebook")
        _close(folder)
        return folder
    except OSError:
        return private_temporary_folder()


def _device_limit_gb() -> float | None:
    import mlx.core as mx

    info = mx.device_info()
    # Metal names what it recommends, CUDA what the card has (mlx/backend/gpu/available.h, 0.32), the CPU neither.
    for key in ("max_recommended_working_set_size", "total_memory"):
        if key in info:
            return int(info[key]) / 1e9
    return None


def _writable(folder: Path) -> Path:
    make_private_folder(folder)
    with tempfile.TemporaryFile(dir=folder):
        return folder


def private_temporary_folder() -> Path:
    """`/tmp/tunebook-<user>`, refused when another user made it: a library is loaded from the cache."""
    folder = Path(tempfile.gettempdir()) / f"tunebook-{os.getuid()}"
    make_private_folder(folder)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to someone else or others can write to it. Set TUNEBOOK_CACHE.")
    _close(folder)
    return folder


def _close(folder: Path) -> None:
    """Take a folder of the kit's own name from others where it is this user's; what a link leads to is left alone."""
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and status.st_mode & 0o077:
        folder.chmod(FOLDER_MODE)
