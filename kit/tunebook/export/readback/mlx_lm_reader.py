"""A fresh process that opens a model folder with stock mlx-lm and says what loss it gives some tokens.

`python -m tunebook.export.readback.mlx_lm_reader QUESTION.json` prints one line of JSON. Of our own code it uses only
the wing of the machine, for its speed: what it measures is what a stranger would get from the files. The one exception
are adapters mlx-lm does not open: PEFT's, and those with whole modules beside them.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...machine import runtime  # first: it loads the fast BLAS that MLX then finds
from ...machine.without_torch import torch_unseen


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the process is asked; it travels as a file of JSON."""

    model: str  # a model folder
    adapter: str | None = None  # a folder of adapters to put on it
    bits: int | None = None  # quantize the model first, as `load_in_4bit` does
    trust_remote_code: bool = False  # whether Python in the model's folder may run
    rows: list[dict[str, list[int]]]  # `tokens` and `mask`, (T,) each
    texts: list[tuple[str, bool]]  # to be tokenized; True: opened with the tokenizer's special tokens
    messages: list[dict[str, str]] | None = None  # a conversation for the chat template to render, up to an answer

    def save(self, path: Path) -> None:
        """Write it for the process to read."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What it found."""

    loss: float  # nats per supervised token
    tokens_sec: float  # read in one pass
    ids: list[list[int]]  # of each text
    rendered: str | None  # the conversation


Open = Callable[[Question], tuple[Any, Any]]
LogProbs = Callable[[Any, np.ndarray], np.ndarray]


def main(open_model: Open, log_probs: LogProbs) -> None:
    """Read the question, answer it, print the answer as JSON.

    `open_model` returns (model, tokenizer). `log_probs(model, tokens)` is (T-1,): the log probability the model gives
    each of tokens[1:] after those before it, in nats.
    """
    question = Question(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    model, tokenizer = open_model(question)
    nats, supervised, read, began = 0.0, 0, 0, time.perf_counter()
    for row in question.rows:
        tokens, mask = np.array(row["tokens"], dtype=np.int32), np.array(row["mask"], dtype=np.float32)
        nats -= float((log_probs(model, tokens) * mask[1:]).sum())
        supervised += int(mask[1:].sum())
        read += len(tokens)
    seconds = time.perf_counter() - began
    ids = [tokenizer.encode(text, add_special_tokens=opens) for text, opens in question.texts]
    rendered = None
    if question.messages is not None:
        rendered = tokenizer.apply_chat_template(question.messages, tokenize=False, add_generation_prompt=True)
    print(json.dumps(asdict(Answer(loss=nats / supervised, tokens_sec=read / seconds, ids=ids, rendered=rendered))))


def open_model(question: Question) -> tuple[Any, Any]:
    """(model, tokenizer), by mlx-lm."""
    import mlx.core as mx
    import mlx_lm
    from mlx_lm.tuner.utils import load_adapters as stock_load_adapters
    from mlx_lm.utils import quantize_model

    from ...model_files.checkpoint_config import translated
    from ...model_files.trusted import openable, read_settings
    from ...models.adapters import load_adapters

    trusts = question.trust_remote_code
    folder = Path(question.model)
    # A model that was saved for others has to be said in mlx-lm's words; an export is already, and is opened as it is.
    config = None if question.adapter is None else translated(read_settings(folder / "config.json"))
    shown = openable(folder, trust_remote_code=trusts, config=config)
    module, tokenizer = mlx_lm.load(str(shown), {"trust_remote_code": trusts}, trust_remote_code=trusts)[:2]
    if runtime.backend() == "cpu":
        module.set_dtype(mx.float32)
    if question.bits is not None:
        module, _ = quantize_model(module, {}, group_size=64, bits=question.bits)
    if question.adapter is not None and is_for_mlx_lm(Path(question.adapter)):
        stock_load_adapters(module, question.adapter)
    elif question.adapter is not None:
        load_adapters(module, question.adapter)
    return module.eval(), tokenizer


def log_probs(module: Any, tokens: np.ndarray) -> np.ndarray:
    """(T-1,): as `main` wants them."""
    import mlx.core as mx
    import mlx.nn as nn

    logits = module(mx.array(tokens[None, :-1])).astype(mx.float32)[0]  # (T-1, V)
    return -np.array(nn.losses.cross_entropy(logits, mx.array(tokens[1:])))


def is_for_mlx_lm(adapter: Path) -> bool:
    """Whether stock mlx-lm opens a folder of adapters: its own format, and no module in it that was trained whole."""
    settings = json.loads((adapter / "adapter_config.json").read_text())
    return "peft_type" not in settings and "modules_to_save" not in settings


if __name__ == "__main__":
    with torch_unseen():
        main(open_model, log_probs)
