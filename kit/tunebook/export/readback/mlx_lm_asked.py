"""A fresh process that opens a model folder with stock mlx-lm and replies to what `asking.py` asks of it.

`python -m tunebook.export.readback.mlx_lm_asked` reads questions, a line of JSON each, from its standard input, and
prints a line of JSON for each reply. How the folder is opened is `mlx_lm_reader.py`'s.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...machine.without_torch import torch_unseen
from .mlx_lm_reader import Question, open_model

OpenAsked = Callable[[str, str | None], tuple[Any, Any]]  # (folder, folder of adapters) -> (model, what reads for it)
Replies = Callable[[Any, Any, dict[str, Any]], Iterator[dict[str, Any]]]


def replies(model: Any, tokenizer: Any, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A reply to every text, prompt and row, in this order."""
    for text, opens in asked["texts"]:
        yield {"ids": tokenizer.encode(text, add_special_tokens=opens)}
    for ids in asked["prompts"]:
        yield _written(model, tokenizer, ids, asked["max_tokens"], asked["stop"])
    for row in asked["rows"]:
        yield _likelihood(model, np.array(row["tokens"], np.int32), np.array(row["positions"]))


def _written(model: Any, tokenizer: Any, ids: list[int], most: int, stop: list[str]) -> dict[str, Any]:
    from mlx_lm import stream_generate

    tokens, text = [], ""
    for said in stream_generate(model, tokenizer, ids, max_tokens=most):
        if said.finish_reason == "stop":
            return {"tokens": tokens, "ended": True}
        tokens.append(said.token)
        text += said.text
        if any(one in text for one in stop):
            return {"tokens": tokens, "ended": True}
    return {"tokens": tokens, "ended": False}


def _likelihood(model: Any, tokens: np.ndarray, positions: np.ndarray) -> dict[str, Any]:
    import mlx.core as mx

    return summed(model(mx.array(tokens[None, :-1]))[0], tokens, positions)


def summed(logits: Any, tokens: np.ndarray, positions: np.ndarray) -> dict[str, Any]:
    """The likelihood of the (T,) `tokens` at `positions`; `logits` (T-1, V) are those of tokens 1..T-1."""
    import mlx.core as mx
    import mlx.nn as nn

    logits = logits.astype(mx.float32)
    nats, likeliest = -np.array(nn.losses.cross_entropy(logits, mx.array(tokens[1:]))), np.array(logits.argmax(axis=-1))
    nats = nats[positions - 1].astype(np.float64).sum()
    return {"nats": float(nats), "is_greedy": bool((likeliest == tokens[1:])[positions - 1].all())}


def reply_to_all(open_asked: OpenAsked, replies: Replies) -> None:
    """Reply to each question on the standard input; all are about one model, which the first one has opened."""
    opened = None
    for line in sys.stdin:
        asked = json.loads(line)
        opened = opened or open_asked(asked["path"], asked["adapter"])
        for reply in replies(*opened, asked):
            print("\n" + json.dumps(reply), flush=True)


def _opened(path: str, adapter: str | None) -> tuple[Any, Any]:
    return open_model(Question(model=path, adapter=adapter, rows=[], texts=[]))


if __name__ == "__main__":
    with torch_unseen():
        reply_to_all(_opened, replies)
