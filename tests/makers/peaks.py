"""How much memory MLX takes for something, in bytes."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx


def peak_bytes(work: Callable[[], Any], times: int = 3) -> int:
    """What MLX held at most while `work` was done and what it gives was evaluated, beyond what it held before.

    The least of so many times: on a busy machine an array may be let go of a moment later than it could be.
    """
    return min(_peak_bytes(work) for _ in range(times))


def _peak_bytes(work: Callable[[], Any]) -> int:
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(work())
    return mx.get_peak_memory() - before
