"""Hyper-parameters: the keys of a GGUF file <-> config.json, by the architecture's table.

Keys under the architecture's prefix that the table does not know are refused: each one changes what llama.cpp computes.
"""

import gguf
import numpy as np

from ..container import named, shown
from ..typed import count_of, number_of
from .rope import scaling_from_gguf, scaling_to_gguf
from .rules import Architecture, Key, UnsupportedArchitecture

# Keys read elsewhere, or that say nothing about the computation.
_KNOWN = (
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "tensor_data_layout",
)


def add_hyper_parameters(writer: gguf.GGUFWriter, architecture: Architecture, config: dict) -> np.ndarray | None:
    """Put a completed config into a file that has no tensors yet; returns the rope's frequency factors, if any."""
    for key in architecture.keys:
        if config.get(key.config) is None:
            continue
        name, value = f"{architecture.name}.{key.gguf}", config[key.config]
        if key.kind is int:
            writer.add_uint32(name, int(value))
        else:
            writer.add_float32(name, float(value))
    scaling, factors = scaling_to_gguf(architecture, config)
    for key, value in scaling.items():
        name = f"{architecture.name}.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_float32(name, value)
    return factors


def config_of_gguf(
    architecture: Architecture, keys: dict, factors: np.ndarray | None, *, vocab_size: int, tensor_names: set[str]
) -> dict:
    """config.json, without dtype and token ids, for the keys and the (folder-side) tensor names of a .gguf.

    Raises UnsupportedArchitecture for a key that is not in the table, and for values config.json cannot hold.
    """
    prefix = f"{architecture.name}."
    own = {key.removeprefix(prefix): value for key, value in keys.items() if key.startswith(prefix)}
    known = {key.gguf for key in architecture.keys} | set(_KNOWN)
    if unknown := sorted(set(own) - known):
        raise UnsupportedArchitecture(
            f"This GGUF sets {', '.join(named(prefix + key) for key in unknown[:8])}, which cannot be expressed in a "
            f"{architecture.model_types[0]} config.json here."
        )
    for name in ("embedding_length", "block_count", "context_length", "attention.head_count"):
        if name not in own:
            raise ValueError(f"This GGUF has no {prefix}{name}.")
    values: dict[str, object] = {"vocab_size": vocab_size}
    for key in architecture.keys:
        if key.gguf not in own or key.config == "vocab_size":
            continue
        value = _setting(keys, prefix + key.gguf, key)
        if values.setdefault(key.config, value) != value:
            raise _not_one(prefix + key.gguf, value, key)
    values = {key: value for key, value in architecture.fixed.items() if value is not None} | values
    if "num_key_value_heads" not in values:
        values["num_key_value_heads"] = values["num_attention_heads"]
    if "head_dim" not in values:
        values["head_dim"] = own["embedding_length"] // own["attention.head_count"]
    values = (
        {"rope_theta": 10_000.0}
        | {key: value for key, value in architecture.defaults.items() if key.startswith("rope_local")}
        | values
    )
    config = {
        "model_type": architecture.model_types[0],
        "architectures": [architecture.class_name],
        **values,
        **{flag: f"model.layers.0.{module}.bias" in tensor_names for flag, module in architecture.bias_flags.items()},
        "tie_word_embeddings": "lm_head.weight" not in tensor_names,
    }
    config |= architecture.implied(config)
    scaling = scaling_from_gguf(architecture, own, factors, config)
    return config | ({"rope_scaling": scaling} if scaling else {})


def _setting(keys: dict, name: str, key: Key) -> int | float:
    if isinstance(keys[name], list):
        raise _not_one(name, keys[name], key)
    if key.kind is float:
        return _shortest(number_of(keys, name))
    return count_of(keys, name, least=0 if key.config == "sliding_window" else 1)


def _not_one(name: str, value: object, key: Key) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"{name} is {shown(value)}, not one {key.config} for the whole model; that cannot be expressed."
    )


def _shortest(value: float) -> float:
    """The decimal a person wrote: the file holds fp32, in which 1e-5 reads 9.999999747378752e-06."""
    return float(str(np.float32(value)))
