"""What a worker is asked and what it answers about the likelihoods of choices, the same for everybody who scores.

Requests are pairs of texts, as lm-eval has them; a model folder is in float32. Some other requests are asked before the
clock runs, so that nobody pays for imports and first calls.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance


@dataclass(frozen=True, kw_only=True)
class Job:
    """Requests to one model."""

    folder: str  # of the weights, in float32
    requests: list[tuple[str, str]]  # a context, and what may follow it
    warmup: list[tuple[str, str]]  # asked before those that are counted
    batch_size: int = 1
    dtype: str = "float32"  # in which the hf backend computes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What scoring took, and what it came to."""

    seconds: float
    gb: float | None  # the highest memory beyond the weights, in 1e9 bytes; None: not MLX's
    replies: list[tuple[float, bool]]  # (nats, whether greedy) of each request


def job() -> Job:
    """The job of this process."""
    return Job(**json.loads(Path(sys.argv[1]).read_text()))


def answer(task: Job, ask: Callable[[list[Instance]], list[Any]], *, peak: Callable[[], float] | None = None) -> None:
    """Ask `ask` for the likelihoods, and print what that took as the last line."""
    ask(_instances(task.warmup))
    before = peak() if peak else None
    began = time.perf_counter()
    found = ask(_instances(task.requests))
    seconds = time.perf_counter() - began
    gb = None if peak is None or before is None else peak() / 1e9
    replies = [(float(nats), bool(is_greedy)) for nats, is_greedy in found]
    print(json.dumps(asdict(Answer(seconds=seconds, gb=gb, replies=replies))), flush=True)


def mlx_peak() -> Callable[[], float]:
    """The highest memory beyond what is held now, in bytes, since it was asked last."""
    import mlx.core as mx

    mx.clear_cache()
    held = mx.get_active_memory()

    def peak() -> float:
        found = mx.get_peak_memory() - held
        mx.reset_peak_memory()
        return found

    return peak


def _instances(requests: list[tuple[str, str]]) -> list[Instance]:
    return [
        Instance(request_type="loglikelihood", doc={}, arguments=(context, continuation), idx=place)
        for place, (context, continuation) in enumerate(requests)
    ]
