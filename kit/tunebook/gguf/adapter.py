"""LoRA adapters as one .gguf, which llama.cpp puts on a GGUF of the base model (`llama-cli -m BASE --lora FILE`).

Pairs of low-rank factors go in; whole weights, norms and DoRA's magnitudes have no place in such a file and are the
caller's to refuse. Names and arrangement are the architecture's, so the base may be of any type.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType

from ..machine.atomic import new_file
from .architectures.lookup import architecture_of_config, completed
from .architectures.rules import Architecture, TensorRule, UnsupportedArchitecture
from .experts import table_name
from .streaming import Streamed, write_tensors

EMBEDDING = "model.embed_tokens"


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to one weight is b @ a, times alpha / R."""

    a: np.ndarray  # (R, inputs), of experts (E, R, inputs); of the embedding (V, R)
    b: np.ndarray  # (outputs, R), of experts (E, outputs, R); of the embedding (D, R)


def write_adapter(
    config: dict, factors: Mapping[str, Factors], path: Path | str, *, alpha: float, name: str, base: str, tied: bool
) -> Path:
    """Write the `factors` of each adapted module, by its path in the model, as fp32 to `path`, whole or not at all.

    `config` is the base model's config.json, `base` its name; `tied` says that its embedding is its head. Raises
    UnsupportedArchitecture for a module that llama.cpp adapts nothing of, before anything is written.
    """
    path = Path(path)
    architecture = architecture_of_config(config)
    config = completed(config, architecture)
    names = _names(architecture, config["num_hidden_layers"], factors)
    if EMBEDDING in factors and tied:
        raise UnsupportedArchitecture(
            "The adapter of a tied embedding changes the head too, and llama.cpp applies it to the embedding alone. "
            "Use save_pretrained_gguf, which merges it."
        )
    tensors = [
        tensor for module, pair in factors.items() for tensor in _pair(names[module][0], names[module][1], pair, config)
    ]
    with new_file(path) as partial:
        writer = gguf.GGUFWriter(partial, architecture.name)
        writer.add_type("adapter")
        writer.add_name(name)
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, base)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        write_tensors(writer, partial, tensors, f"Writing {path.name}")
    return path


def _names(
    architecture: Architecture, layers: int, factors: Mapping[str, Factors]
) -> dict[str, tuple[str, TensorRule]]:
    """Each module's weight in GGUF, and its rule."""
    table = architecture.tensor_names(layers)
    found = {module: table.get(table_name(f"{module}.weight")) for module in factors}
    if unknown := [module for module, place in found.items() if place is None]:
        raise UnsupportedArchitecture(
            f"{len(unknown)} adapted modules have no rule for {architecture.name}: {', '.join(unknown[:8])}."
        )
    return {module: place for module, place in found.items() if place is not None}


def _pair(name: str, rule: TensorRule, pair: Factors, config: dict) -> list[Streamed]:
    """The rows of b are the weight's rows, and are rearranged as they are."""
    arrays = {"lora_a": pair.a, "lora_b": rule.to_gguf(pair.b, config)}
    return [
        Streamed(f"{name}.{leaf}", array.shape, GGMLQuantizationType.F32, lambda array=array: [array])
        for leaf, array in arrays.items()
    ]
