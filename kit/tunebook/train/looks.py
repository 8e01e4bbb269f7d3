"""Looks at a model in the middle of a run: its loss on the held-out rows, and what it writes after the prompts.

Each is a generator that yields `Working` often, so that whoever drains it can listen in between, and close it when the
look is no longer wanted. The weights are only read.
"""

import time
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing

import mlx.core as mx

from ..events import EvalEvent, SampleEvent, Working
from ..models.generation import Prompt, write
from .evaluation import Score, score
from .plan import RunPlan


def held_out_score(plan: RunPlan, step: int) -> Generator[Working, None, EvalEvent]:
    """Score the held-out rows as the model is after `step`; the EvalEvent is the generator's return value."""
    began, config = time.perf_counter(), plan.config
    scoring = score(
        plan.loaded.module,
        plan.loaded.family,
        plan.eval_rows,
        batch_size=config.per_device_eval_batch_size or config.per_device_train_batch_size,
        max_seq_length=plan.max_seq_length,
        skip_unreadable=plan.skip_unreadable,
    )
    found = yield from _evaluating(scoring, step)
    return EvalEvent(
        step=step,
        loss=found.loss,
        tokens=found.tokens,
        rows=len(plan.eval_rows),
        seconds=time.perf_counter() - began,
    )


def samples(plan: RunPlan, prompts: Sequence[Prompt], step: int) -> Generator[Working | SampleEvent, None, None]:
    """Write on after each of `prompts`; one that is broken off gives no SampleEvent."""
    longest = plan.config.sample_max_tokens
    for prompt in prompts:
        began, pieces = time.perf_counter(), []
        with closing(write(plan.loaded, prompt.example, max_tokens=longest)) as writing:
            for piece in writing:
                pieces.append(piece)
                yield Working(step=step, what="sampling", done=min(len(pieces), longest), total=longest)
        seconds = time.perf_counter() - began
        yield SampleEvent(step=step, prompt=prompt.shown, text="".join(pieces), seconds=seconds)
    mx.clear_cache()


def unanswered(prompts: Sequence[Prompt], samples: Iterable[SampleEvent]) -> list[Prompt]:
    """Those of `prompts` that have no sample among `samples`; one that is given twice has two."""
    answered = Counter(sample.prompt for sample in samples)
    left = []
    for prompt in prompts:
        answered[prompt.shown] -= 1
        if answered[prompt.shown] < 0:
            left.append(prompt)
    return left


def _evaluating(scoring: Generator[tuple[int, int], None, Score], step: int) -> Generator[Working, None, Score]:
    with closing(scoring):
        while True:
            try:
                done, total = next(scoring)
            except StopIteration as end:
                return end.value
            yield Working(step=step, what="evaluating", done=done, total=total)
