"""Adapters of a model whose output head is its embedding: what a file has for either, and what PEFT trained of them."""

from dataclasses import replace
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from .saved import Saved, Tensors

LINEAR = (nn.Linear, nn.QuantizedLinear)
EMBEDDING = (nn.Embedding, nn.QuantizedEmbedding)


def without_second_head(module: nn.Module, saved: Saved) -> Saved:
    """`saved` without the head that the model does not have, where it is but what the file has for the embedding."""
    if saved.peft is None or has_head(module):
        return saved
    whole = {
        name: tensor
        for name, tensor in saved.whole.items()
        if not (
            is_of_head(name) and any(other != name and are_equal(tensor, saved.whole[other]) for other in saved.whole)
        )
    }
    adapters = {
        path: leaves
        for path, leaves in saved.adapters.items()
        if not (is_of_head(path) and any(_mirrors(leaves, other) for other in saved.adapters.values()))
    }
    dropped = len(whole) < len(saved.whole) or len(adapters) < len(saved.adapters)
    return replace(saved, whole=whole, adapters=adapters, head_agrees=dropped)


def _mirrors(head: Tensors, embedding: Tensors) -> bool:
    """Whether an adapter on a head is the one on its embedding read backwards: A in the place of B, each turned."""
    if head.keys() != {"lora_a", "lora_b"} or head.keys() != embedding.keys():
        return False
    return are_equal(head["lora_a"], embedding["lora_b"].T) and are_equal(head["lora_b"], embedding["lora_a"].T)


def is_of_head(name: str) -> bool:
    return "lm_head" in name.split(".")


def has_head(module: nn.Module) -> bool:
    return any(is_of_head(path) for path, _ in module.named_modules())


def are_equal(one: mx.array, other: mx.array) -> bool:
    """Whether two arrays hold the same numbers, once both are of the coarser of their types."""
    kind = min((one.dtype, other.dtype), key=lambda dtype: (dtype.size, dtype == mx.float16))
    return bool(mx.array_equal(one.astype(kind), other.astype(kind)).item())


def check_tied(module: nn.Module, saved: Saved, config: dict[str, Any]) -> None:
    """Raise ValueError where PEFT would change the embedding and leave the head, which here is the same array."""
    if config.get("ensure_weight_tying"):
        return
    trained_whole = config.get("modules_to_save") or ()
    for path, part in module.named_modules():
        if not isinstance(part, EMBEDDING) or not _is_head_too(module, part):
            continue
        leaf, name = path.rsplit(".", 1)[-1], f"{path}.weight"
        alone = name in saved.whole and not saved.head_agrees
        if path in saved.adapters or (alone and any(leaf == one.rsplit(".", 1)[-1] for one in trained_whole)):
            raise ValueError(
                f"{path} is also this model's output head, and PEFT trained it as the embedding alone, which "
                "cannot be had here. Merge them with PEFT (merge_and_unload, then save_pretrained) and load the merged "
                "folder, or train with PEFT's ensure_weight_tying=True."
            )


def _is_head_too(module: nn.Module, embedding: nn.Module) -> bool:
    """Whether an embedding is read backwards for the logits: it has the most rows, no projection ends in as many."""
    sizes = [
        (isinstance(part, EMBEDDING), cast(mx.array, part["weight"]).shape[0])
        for _, part in module.named_modules()
        if isinstance(part, EMBEDDING + LINEAR)
    ]
    rows = cast(mx.array, embedding["weight"]).shape[0]
    return rows == max(size for is_table, size in sizes if is_table) and (False, rows) not in sizes
