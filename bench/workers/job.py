"""What a worker is asked and what it answers, the same for every trainer.

The rows are token ids with the place where the answer begins, all of one length, so that no trainer pads and each
compiles its step once. The weights are a folder. LoRA of rank `r` and scale 1 lies on all linear layers of all blocks.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

RATE = 1e-4
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, kw_only=True)
class Job:
    folder: str  # of the weights, in float32
    rows: list[list[int]]  # of one batch, token ids
    answer: int  # the place in every row from which tokens are supervised
    steps: int  # that are counted
    warmup: int  # steps before them that are not
    checkpointing: bool  # layers are computed twice and keep little

    @property
    def supervised_tokens(self) -> int:
        return len(self.rows) * (len(self.rows[0]) - self.answer)


@dataclass(frozen=True, kw_only=True)
class Answer:
    seconds: list[float]  # of each counted step
    gb: float  # the highest memory beyond the weights and adapters, in 1e9 bytes
    losses: list[float]  # nats per supervised token, of every step


def job() -> Job:
    """The job of this process."""
    return Job(**json.loads(Path(sys.argv[1]).read_text()))


def answer(job: Job, train: Callable[[Callable[..., None]], None]) -> None:
    """Run `train(ended)`, which makes `ended` a step callback, and print what it took as the last line."""
    import mlx.core as mx

    mx.clear_cache()
    mx.reset_peak_memory()
    held, moments, losses = mx.get_active_memory(), [], []

    def ended(_step: int, _total: int, loss: float, *_others: float) -> None:
        moments.append(time.perf_counter())
        losses.append(loss)

    train(ended)
    gaps = [after - before for before, after in pairwise(moments)]
    found = Answer(seconds=gaps[job.warmup - 1 :], gb=(mx.get_peak_memory() - held) / 1e9, losses=losses)
    print(json.dumps(asdict(found)), flush=True)


def quiet() -> None:
    """No hub is asked and no tracker is started."""
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false")
