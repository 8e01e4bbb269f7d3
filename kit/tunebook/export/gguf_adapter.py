"""The adapters alone as one .gguf, for llama.cpp's `--lora` on a GGUF of the base model.

It holds low-rank factors and nothing else: DoRA and modules that were trained whole are refused, and go into a merged
file (`gguf.py`) instead.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tuner.lora import LoRAEmbedding, LoRASwitchLinear

from ..adapters import describe, trained_whole
from ..gguf import check_architecture
from ..gguf.adapter import Factors, write_adapter
from ..loader import Loaded
from .gguf import name_of


def save_gguf_adapter(loaded: Loaded, folder: Path | str) -> Path:
    """Write the adapters to `folder/NAME.lora.gguf`, which appears whole or not at all, and return it.

    Raises ValueError when the model has none, and UnsupportedArchitecture or ValueError for what such a file cannot
    hold, before anything is written.
    """
    check_architecture(loaded.config)
    settings = describe(loaded.module)
    if settings is None:
        raise ValueError("This model has no adapters to save; call FastModel.get_peft_model before training.")
    lora, name = settings["lora_parameters"], name_of(loaded)
    layers: dict[str, Any] = dict(loaded.module.named_modules())
    _refuse(loaded, layers)
    return write_adapter(
        loaded.config,
        {module: _factors(layers[module]) for module in lora["keys"]},
        Path(folder) / f"{name.lower()}.lora.gguf",
        alpha=lora["scale"] * lora["rank"],
        name=f"{name} adapters",
        base=loaded.name,
        tied="lm_head" not in layers,
    )


def _refuse(loaded: Loaded, layers: dict[str, Any]) -> None:
    reasons = []
    if any("m" in layer for layer in layers.values() if "lora_a" in layer):
        reasons.append("it has no place for the magnitudes of DoRA")
    if whole := trained_whole(loaded.module):
        reasons.append(f"modules_to_save trained {len(whole)} tensors whole ({whole[0]})")
    if reasons:
        raise ValueError(
            f"These adapters cannot be a GGUF adapter: {'; '.join(reasons)}. Use save_pretrained_gguf, which merges "
            "them, or another format."
        )


def _factors(layer: nn.Module) -> Factors:
    """MLX keeps the transposes of the factors of a linear layer, and of the embedding's second."""
    a, b = layer["lora_a"], layer["lora_b"]
    if isinstance(layer, LoRASwitchLinear):
        return Factors(_numpy(a), _numpy(b))
    return Factors(_numpy(a if isinstance(layer, LoRAEmbedding) else a.T), _numpy(b.T))


def _numpy(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32))
