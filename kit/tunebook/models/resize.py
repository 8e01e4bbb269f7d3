"""Rows for new tokens: a loaded model goes in, and its embedding and head come out as long as its tokenizer needs.

The rows there were stay as they are, bit for bit, in a quantized table too, whose groups lie within a row. A new row is
the mean of the old ones, which says nothing in particular; it learns where the table is trained (modules_to_save, or
full_finetuning).
"""

import json
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .families.head import head_layer, language_model
from .loaded import Loaded
from .tensors import flat


def resize(loaded: Loaded) -> int:
    """Add the rows that the tokenizer's ids need, in place; returns how many were added.

    Raises ValueError for a model that has adapters, and for one whose head is not found.
    """
    needed = 1 + max(loaded.tokenizer.get_vocab().values())
    before = loaded.family.tables
    if needed <= min(before.tokens or 0, before.targets):
        return 0
    if any(name.endswith("lora_a") for name in flat(loaded.module.parameters())):
        raise ValueError("This model has adapters already; resize its embeddings before get_peft_model.")
    parts = dict(loaded.module.named_modules())
    layers = [parts[path] for path in before.paths]
    if "lm_head" in language_model(loaded.module):
        layers.append(head_layer(loaded.module))
    for layer in layers:
        _lengthen(layer, needed)
    mx.eval(loaded.module.parameters())
    loaded.family.measure(loaded.module)
    after = loaded.family.tables
    if min(after.tokens or 0, after.targets) < needed:
        raise ValueError(
            f"The tokenizer of {loaded.name} needs {needed} rows, and where this model keeps its embedding or its head "
            "is not known; leave the new tokens out."
        )
    set_vocabulary(loaded.config, needed)
    return needed - (before.tokens or 0)


def set_vocabulary(config: dict[str, Any], rows: int) -> None:
    """Write how many rows the embedding has into a config, in place."""
    of_text = config.get("text_config", config)
    (config if "vocab_size" in config and "vocab_size" not in of_text else of_text)["vocab_size"] = rows


def added_rows(loaded: Loaded) -> int:
    """How many rows the embedding has beyond those of the model folder."""
    config = json.loads((loaded.folder / "config.json").read_text())
    known = config.get("text_config", config).get("vocab_size", config.get("vocab_size"))
    return max(0, (loaded.family.tables.tokens or 0) - known) if isinstance(known, int) else 0


def _lengthen(layer: nn.Module, rows: int) -> None:
    """Give a table (V, D), quantized or not, `rows` rows, in place; one that is as long already is left alone."""
    missing = rows - layer["weight"].shape[0]
    if missing <= 0:
        return
    new: dict[str, mx.array]
    if "scales" in layer:
        quantized: Any = layer
        settings = {"group_size": quantized.group_size, "bits": quantized.bits, "mode": quantized.mode}
        whole = mx.dequantize(layer["weight"], layer["scales"], layer.get("biases"), **settings)
        names = ("weight", "scales", "biases")
        new = dict[str, mx.array](
            zip(names, mx.quantize(_mean(whole, missing).astype(whole.dtype), **settings), strict=False)
        )
    else:
        new = {"weight": _mean(layer["weight"], missing)}
    if "bias" in layer:
        new["bias"] = _mean(layer["bias"], missing)
    for name, added in new.items():
        layer[name] = mx.concatenate([layer[name], added.astype(layer[name].dtype)])


def _mean(table: mx.array, rows: int) -> mx.array:
    mean = table.astype(mx.float32).mean(axis=0, keepdims=True).astype(table.dtype)
    return mx.repeat(mean, rows, axis=0)
