"""Greedy answers of text models: to many prompts at once, by mlx-lm's batch generator, or to one after another.

Both give the same tokens, but for rounding where two are about as likely; that a model's layers and caches do so with
rows of unequal length is proven on a probe before it is relied on.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import count
from typing import cast, final

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.models.cache import CacheList, make_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..tensors import number
from .base import Written

Ids = list[int]
Answer = tuple[Ids, bool]  # the tokens without the one that ends them; whether one did, or the limit was reached

_PROBES, _STEPS = (4, 17, 9), 3  # tokens of the probe's prompts, and how many are written after each
# Of a log-probability: rounding changes it by less, a row that sees the padding of another by more.
ROUNDING, ROUNDING_OF_16_BITS = 1e-2, 0.3


@final
class Ending:
    """What ends an answer: one of the tokenizer's tokens for that, or one of the texts `stop`."""

    def __init__(self, tokenizer: TokenizerWrapper, stop: Sequence[str] = ()):
        self._tokenizer, self._stop = tokenizer, tuple(text for text in stop if text)
        self.tokens = frozenset(tokenizer.eos_token_ids)
        # A token has a byte at least, so that a text that just ended lies within as many.
        self._reach = max((len(text.encode()) for text in self._stop), default=0) + 1

    def is_reached(self, tokens: Ids) -> bool:
        """Whether the last of `tokens` completes one of the texts."""
        if not self._stop:
            return False
        tail = self._tokenizer.decode(tokens[-self._reach :])
        return any(text in tail for text in self._stop)

    def written(self, tokens: Ids, *, ended: bool) -> Written:
        """An answer as text, as `generate` spells it."""
        detokenizer = self._tokenizer.detokenizer
        for token in tokens:
            detokenizer.add_token(token)
        detokenizer.finalize()
        text = detokenizer.text
        for stop in self._stop:
            text = text.partition(stop)[0]
        return Written(tuple(tokens), text, ended)


def answered_together(
    module: nn.Module, prompts: Sequence[Ids], limits: Sequence[int], ending: Ending, *, batch_size: int
) -> Iterator[tuple[int, Answer]]:
    """(place in `prompts`, answer) as they are done, each of at most its limit; `batch_size` are written at a time.

    Begins with the longest prompts, where most memory is taken.
    """
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    generator = BatchGenerator(
        module,
        stop_tokens=[(token,) for token in sorted(ending.tokens)],
        completion_batch_size=batch_size,
        prefill_batch_size=batch_size,
    )
    with closing(generator):
        uids = generator.insert([prompts[place] for place in order], [limits[place] for place in order])
        places = dict(zip(uids, order, strict=True))
        written: dict[int, Ids] = {uid: [] for uid in uids}
        while written:
            for said in generator.next_generated():
                ended = said.finish_reason == "stop"
                if not ended:
                    written[said.uid].append(said.token)
                    if ending.is_reached(written[said.uid]):
                        ended = True
                        if said.finish_reason is None:
                            generator.remove([said.uid])
                if ended or said.finish_reason is not None:
                    yield places[said.uid], (written.pop(said.uid), ended)
    mx.clear_cache()


def answered_alone(module: nn.Module, prompt: Ids, limit: int, ending: Ending) -> Answer:
    """The answer to one prompt."""
    with closing(generate_step(mx.array(prompt), module, max_tokens=limit)) as steps:
        return until_end((cast(int, token) for token, _ in steps), ending)


def until_end(tokens: Iterable[int], ending: Ending) -> Answer:
    """`tokens` up to one of those that end an answer, or to the last of a text that does."""
    found: Ids = []
    for token in tokens:
        if token in ending.tokens:
            return found, True
        found.append(token)
        if ending.is_reached(found):
            return found, True
    return found, False


def greedy(logprobs: mx.array) -> mx.array:
    """(B,) the likeliest tokens of (B, V)."""
    return mx.argmax(logprobs, axis=-1)


def why_not_together(module: nn.Module, vocabulary: int) -> str | None:
    """Why prompts are answered one by one, as the end of a sentence; None where together they get the same answers."""
    if odd := [type(cache).__name__ for cache in make_prompt_cache(module) if not _joins(cache)]:
        return f"mlx-lm does not put caches of the kind {odd[0]} together"
    numbers = count(1)
    prompts = [[37 * next(numbers) % vocabulary for _ in range(length)] for length in _PROBES]
    try:
        together = _together(module, prompts)
    except (ValueError, TypeError) as error:  # Gemma 2's attention does not take a mask of several rows (mlx-lm 0.32)
        return f"mlx-lm's own code for it fails with several rows ({error})"
    for prompt, found in zip(prompts, together, strict=True):
        alone = list(generate_step(mx.array(prompt), module, max_tokens=_STEPS))
        for (token, theirs), (other, ours) in zip(alone, found, strict=True):
            off = number(mx.abs(theirs - ours).max())
            if not off <= (ROUNDING if ours.dtype == mx.float32 else ROUNDING_OF_16_BITS):
                return f"its layers see the padding of other rows (a log-probability is off by {off:.2g})"
            if token != other:
                break  # about as likely; what follows is another text
    return None


def _together(module: nn.Module, prompts: Sequence[Ids]) -> list[list[tuple[int, mx.array]]]:
    """(token, log-probabilities (V,)) of each step after each prompt."""
    found: dict[int, list[tuple[int, mx.array]]] = {}
    with closing(BatchGenerator(module, max_tokens=_STEPS, prefill_batch_size=len(prompts))) as generator:
        uids = generator.insert([list(prompt) for prompt in prompts])
        while sum(map(len, found.values())) < _STEPS * len(prompts):
            for said in generator.next_generated():
                found.setdefault(said.uid, []).append((said.token, said.logprobs))
    return [found[uid] for uid in uids]


def _joins(cache: object) -> bool:
    if isinstance(cache, CacheList):
        return all(map(_joins, cache.caches))
    return hasattr(type(cache), "merge")  # as mlx-lm tells them apart (mlx_lm/generate.py, 0.32)
