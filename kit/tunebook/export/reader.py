"""A fresh process that opens a model folder with stock mlx-lm and says what loss it gives some tokens.

`python -m tunebook.export.reader MODEL ROWS.npz [--adapter FOLDER]` prints one line of JSON. Of our own code it uses
only the platform room, for its speed: what it measures is what a stranger would get from the files. The one exception
are adapters mlx-lm does not open: PEFT's, and those with whole modules beside them.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import runtime  # first: it loads the fast BLAS that MLX then finds

Measure = Callable[[str, str | None, list[Any]], tuple[float, int]]


def pairs(file: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(T,) token ids and (T,) loss mask of each row in an .npz of `tokens_0`, `loss_mask_0`, `tokens_1`, ..."""
    return [(file[f"tokens_{index}"], file[f"loss_mask_{index}"]) for index in range(len(file.files) // 2)]


def answer(measure: Measure, rows_of: Callable[[Any], list[Any]] = pairs) -> None:
    """Parse the command line, `measure`, print `{"loss": nats per supervised token, "tokens": how many}`."""
    parser = argparse.ArgumentParser(description="The loss another program gives some rows.")
    parser.add_argument("model")
    parser.add_argument("rows", help="an .npz of tokens_0, loss_mask_0, tokens_1, ...")
    parser.add_argument("--adapter")
    options = parser.parse_args()
    with np.load(options.rows) as file:
        rows = rows_of(file)
    loss, tokens = measure(options.model, options.adapter, rows)
    print(json.dumps({"loss": loss, "tokens": tokens}))


def measure(model: str, adapter: str | None, rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, int]:
    """(nats per supervised token, supervised tokens) of rows of (T,) token ids and (T,) loss masks, one at a time."""
    import mlx.core as mx
    import mlx.nn as nn
    import mlx_lm

    from ..adapters import load_adapters
    from ..tensors import number

    if adapter is not None and not is_for_mlx_lm(Path(adapter)):
        module = mlx_lm.load(model)[0]
        load_adapters(module, adapter)
    else:
        module = mlx_lm.load(model, adapter_path=adapter)[0]
    if runtime.backend() == "cpu":
        module.set_dtype(mx.float32)
    nats, count = 0.0, 0
    for tokens, mask in rows:
        logits = module(mx.array(tokens[None, :-1])).astype(mx.float32)[0]  # (T-1, V)
        each = nn.losses.cross_entropy(logits, mx.array(tokens[1:]))  # (T-1,)
        nats += number((each * mx.array(mask[1:])).sum())
        count += int(mask[1:].sum())
    return nats / count, count


def is_for_mlx_lm(adapter: Path) -> bool:
    """Whether stock mlx-lm opens a folder of adapters: its own format, and no module in it that was trained whole."""
    settings = json.loads((adapter / "adapter_config.json").read_text())
    return "peft_type" not in settings and "modules_to_save" not in settings


if __name__ == "__main__":
    answer(measure)
