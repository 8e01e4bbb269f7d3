"""A fresh process that opens a model folder with stock mlx-lm and replies to what `asking.py` asks of it.

`python -m tunebook.export.readback.mlx_lm_asked` reads questions, a line of JSON each, from its standard input, and
prints a line of JSON for each reply. How the folder is opened is `mlx_lm_reader.py`'s.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from .mlx_lm_reader import Question, open_model


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
    import mlx.nn as nn

    logits = model(mx.array(tokens[None, :-1])).astype(mx.float32)[0]  # (T-1, V)
    nats, likeliest = -np.array(nn.losses.cross_entropy(logits, mx.array(tokens[1:]))), np.array(logits.argmax(axis=-1))
    nats = nats[positions - 1].astype(np.float64).sum()
    return {"nats": float(nats), "is_greedy": bool((likeliest == tokens[1:])[positions - 1].all())}


def main() -> None:
    """Reply to each question; all are about one model."""
    opened = None
    for line in sys.stdin:
        asked = json.loads(line)
        opened = opened or open_model(Question(model=asked["path"], adapter=asked["adapter"], rows=[], texts=[]))
        for reply in replies(*opened, asked):
            print("\n" + json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
