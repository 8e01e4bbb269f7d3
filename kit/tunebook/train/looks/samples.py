"""What a model writes after the prompts of a run, in the middle of it: a plan in, a SampleEvent for each prompt out."""

import time
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import final

import mlx.core as mx

from ...events import SampleEvent, Working
from ...models.generation import Prompt, write
from ..plan import RunPlan


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


@final
class Samples:
    """The samples of one step: those there are, and the prompts that have none yet."""

    def __init__(self, prompts: Sequence[Prompt]):
        self._prompts = prompts
        self._taken: list[SampleEvent] = []  # of the last step any were taken after

    def put_back(self, taken: Iterable[SampleEvent]) -> None:
        """What a run that is resumed had taken already."""
        self._taken = list(taken)

    def were_begun(self, step: int) -> bool:
        """Whether any was taken after `step`."""
        return any(sample.step == step for sample in self._taken)

    def left(self, step: int) -> list[Prompt]:
        """The prompts without a sample of `step`; one that is given twice has two."""
        answered = Counter(sample.prompt for sample in self._taken if sample.step == step)
        left = []
        for prompt in self._prompts:
            answered[prompt.shown] -= 1
            if answered[prompt.shown] < 0:
                left.append(prompt)
        return left

    def taken(self, plan: RunPlan, step: int) -> Generator[Working | SampleEvent, None, None]:
        """Take those that are left. Each counts once whoever drains them has gone on from its event."""
        self._taken = [sample for sample in self._taken if sample.step == step]
        for event in samples(plan, self.left(step), step):
            yield event
            if isinstance(event, SampleEvent):
                self._taken.append(event)
