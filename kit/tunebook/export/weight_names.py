"""Which weights mlx-lm calls otherwise than the checkpoint it read, so that transformers would not find them."""

from pathlib import Path
from typing import cast

import mlx.core as mx
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from ..models.loaded import Loaded


def in_checkpoint(folder: Path) -> set[str]:
    """The names of all tensors in a model folder; nothing of them is read."""
    return {
        name for file in folder.glob("model*.safetensors") for name in cast("dict[str, mx.array]", mx.load(str(file)))
    }


def names_of_mlx_lm(loaded: Loaded) -> list[str]:
    """Paths of the layers a merged folder holds under names of mlx-lm's alone: stacked experts, and what it renamed."""
    there = in_checkpoint(loaded.folder)
    return sorted(
        path
        for path, layer in loaded.module.named_modules()
        if "weight" in layer
        and (isinstance(layer, SwitchLinear | QuantizedSwitchLinear) or f"{_bare(path)}.weight" not in there)
    )


def _bare(path: str) -> str:
    """The path of a layer without the adapter around it."""
    return path.removesuffix(".linear").removesuffix(".embedding")
