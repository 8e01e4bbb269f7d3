"""Generation over two turns: what the key-value cache makes of each token, and what the whole text gives at once.

The second turn goes into the cache the first one left, as in a chat. Text is compared nowhere: one close call, decided
the other way, and the rest is another story.
"""

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache

from ...models.tensors import number
from ..case import Case
from ..finding import Finding

TOKENS = 12  # written in each turn
TOLERANCE = 1e-3  # log probability


def generation(case: Case) -> list[Finding]:
    """The largest difference of a log probability on the way, with cache and without, adapters acting."""
    case.put(case.filled)
    module = case.adapted.module
    module.eval()
    cache = make_prompt_cache(module)
    said: list[int] = []  # what is in the cache: mlx-lm reads each token before it yields it
    worst, at = 0.0, ""
    for turn, row in enumerate(case.sample[:2], start=1):
        prompt = row.tokens[: len(row.tokens) // 2 + 1].tolist()
        said += prompt
        for token, log_probabilities in generate_step(mx.array(prompt), module, max_tokens=TOKENS, prompt_cache=cache):
            whole = module(mx.array([said]))[0, -1].astype(mx.float32)
            off = np.abs(np.array(whole - mx.logsumexp(whole)) - np.array(log_probabilities.astype(mx.float32))).max()
            if not off <= worst:
                worst, at = float(off), f"Largest before token {len(said)}, in turn {turn}."
            said.append(int(token) if isinstance(token, int) else int(number(token)))
    case.put(case.start)
    return [
        Finding(
            stage="generation",
            what="log probabilities over two turns, with the cache and without",
            measured=worst,
            tolerance=TOLERANCE,
            unit="nats",
            evidence=at,
        )
    ]
