"""What a process that takes steps is asked and what it answers; both travel as JSON.

All rows are of one length and supervised whole, so that nobody pads and each trainer compiles its step once. LoRA of
scale 1 lies on all linear layers of all blocks, without gradient checkpointing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import mlx.core as mx

from ...machine import runtime

RATE = 1e-4
RANK = 16


@dataclass(frozen=True, kw_only=True)
class Job:
    """Some steps to take, all over the same rows."""

    folder: str  # of the weights
    rows: list[list[int]]  # of one batch, token ids
    steps: int  # that are counted
    warmup: int  # steps before them that are not

    @property
    def predicted(self) -> int:
        """Supervised tokens of a step; a row's first is predicted from nothing."""
        return len(self.rows) * (len(self.rows[0]) - 1)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What the steps took."""

    seconds: list[float]  # of each counted step
    losses: list[float]  # nats per supervised token, of every step
    peak_gb: float  # the highest memory while they were taken, weights included
    forms: list[dict[str, Any]] = field(default_factory=list)  # of the kit's pass: what its self-test found of each


def timed(job: Job, train: Callable[[Callable[[float], None]], None]) -> Timed:
    """Run `train(ended)`, which calls `ended(loss)` after every step."""
    moments: list[float] = []
    losses: list[float] = []

    def ended(loss: float) -> None:
        moments.append(time.perf_counter())
        losses.append(loss)

    mx.clear_cache()
    runtime.reset_peak_memory()
    train(ended)
    gaps = [after - before for before, after in pairwise(moments)]
    return Timed(seconds=gaps[job.warmup - 1 :], losses=losses, peak_gb=runtime.memory().peak_gb)
