"""Looks at a model in the middle of a run: its loss on the held-out rows, and what it writes after the prompts.

Each is a generator that yields `Working` often, so that whoever drains it can listen in between, and close it when the
look is no longer wanted. The weights are only read.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import closing

import mlx.core as mx

from .config import TrainingConfig
from .evaluation import Score, score
from .events import EvalEvent, SampleEvent, Working
from .families.base import Encoded
from .loader import Loaded
from .sampling import Prompt, write


def held_out_score(
    loaded: Loaded,
    rows: Sequence[Encoded],
    config: TrainingConfig,
    *,
    step: int,
    max_seq_length: int,
    skip_unreadable: bool,
) -> Generator[Working, None, EvalEvent]:
    """Score `rows` as the model is after `step`; the EvalEvent is the generator's return value."""
    began = time.perf_counter()
    scoring = score(
        loaded.module,
        loaded.family,
        rows,
        batch_size=config.per_device_eval_batch_size or config.per_device_train_batch_size,
        max_seq_length=max_seq_length,
        skip_unreadable=skip_unreadable,
    )
    found = yield from _evaluating(scoring, step)
    return EvalEvent(
        step=step,
        loss=found.loss,
        tokens=found.tokens,
        rows=len(rows),
        seconds=time.perf_counter() - began,
    )


def samples(
    loaded: Loaded, prompts: Sequence[Prompt], *, step: int, max_tokens: int
) -> Generator[Working | SampleEvent, None, None]:
    """Write on after each prompt; one that is broken off gives no SampleEvent."""
    for prompt in prompts:
        began, pieces = time.perf_counter(), []
        with closing(write(loaded, prompt.example, max_tokens=max_tokens)) as writing:
            for piece in writing:
                pieces.append(piece)
                yield Working(step=step, what="sampling", done=min(len(pieces), max_tokens), total=max_tokens)
        seconds = time.perf_counter() - began
        yield SampleEvent(step=step, prompt=prompt.shown, text="".join(pieces), seconds=seconds)
    mx.clear_cache()


def _evaluating(scoring: Generator[tuple[int, int], None, Score], step: int) -> Generator[Working, None, Score]:
    with closing(scoring):
        while True:
            try:
                done, total = next(scoring)
            except StopIteration as end:
                return end.value
            yield Working(step=step, what="evaluating", done=done, total=total)
