"""What a worker is asked and what it answers about steps on pairs of answers, the same for every trainer.

A batch is all pairs, the same in every step, so that each trainer that compiles does so once. Pairs are there as text
and as token ids, which are the same by the log-probabilities that are answered. LoRA of rank 16 and scale 1 lies on all
linear layers of all blocks; beta is 0.1, nothing is dropped out.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

BETA = 0.1
Way = Literal["live", "cached", "sft"]  # the reference in each step, or from before the first; the next token instead


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt and both answers, which end with the end token in `rows` alone."""

    prompt: str
    chosen: str
    rejected: str
    rows: dict[str, list[int]]  # "chosen" and "rejected", each behind its prompt
    prompt_tokens: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """Some steps on `pairs`."""

    folder: str  # of the weights, in float32
    pairs: list[Pair]
    way: Way
    steps: int  # that are counted
    warmup: int  # steps before them that are not
    checkpointing: bool  # layers are computed twice and keep little

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(len(row) for pair in self.pairs for row in pair.rows.values())


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the steps took."""

    seconds: list[float]  # of each counted step
    gb: float  # the highest memory beyond the weights and adapters, in 1e9 bytes; a second copy of the weights counts
    losses: list[float]  # of every step
    logps: list[float]  # of the first step: of the chosen answers and of the rejected, a mean over pairs; [] for "sft"
    forward: list[float]  # seconds of passes over the same rows without a gradient; [] where none was asked for


def job() -> Job:
    """The job of this process."""
    said = json.loads(Path(sys.argv[1]).read_text())
    return Job(**{**said, "pairs": [Pair(**pair) for pair in said["pairs"]]})


def answer(
    job: Job, train: Callable[[Callable[[float, list[float]], None]], None], forward: Callable[[], object] | None = None
) -> None:
    """Run `train(ended)`, which calls `ended(loss, logps)` after each step, then `forward`; print what they took."""
    import mlx.core as mx

    mx.clear_cache()
    mx.reset_peak_memory()
    held, moments, losses, first = mx.get_active_memory(), [], [], []

    def ended(loss: float, logps: list[float]) -> None:
        moments.append(time.perf_counter())
        losses.append(loss)
        first.append(logps)

    train(ended)
    gb = (mx.get_peak_memory() - held) / 1e9
    passes = []
    for _ in range(job.warmup + job.steps if forward else 0):
        began = time.perf_counter()
        forward()
        passes.append(time.perf_counter() - began)
    gaps = [after - before for before, after in pairwise(moments)]
    found = Answer(seconds=gaps[job.warmup - 1 :], gb=gb, losses=losses, logps=first[0], forward=passes[job.warmup :])
    print(json.dumps(asdict(found)), flush=True)
