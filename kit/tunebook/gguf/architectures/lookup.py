"""Which row of the table a config.json or a .gguf belongs to, and whether the row can carry it whole."""

from ..container import shown
from .rules import Architecture, UnsupportedArchitecture
from .table import ARCHITECTURES

SUPPORTED_MODEL_TYPES = tuple(kind for row in ARCHITECTURES for kind in row.model_types)
SUPPORTED_NAMES = tuple(row.name for row in ARCHITECTURES)


def architecture_of_config(config: dict) -> Architecture:
    """The row for a config.json. Raises UnsupportedArchitecture with the supported model types."""
    kind = config.get("model_type")
    for row in ARCHITECTURES:
        if kind in row.model_types:
            return row
    raise UnsupportedArchitecture(
        f"GGUF files cannot be written for model_type {kind!r} yet; supported are {', '.join(SUPPORTED_MODEL_TYPES)}."
    )


def architecture_of_gguf(name: str) -> Architecture:
    """The row for a `general.architecture`. Raises UnsupportedArchitecture with the supported ones."""
    for row in ARCHITECTURES:
        if name == row.name:
            return row
    raise UnsupportedArchitecture(
        f"GGUF files of architecture {shown(name)} cannot be read yet; supported are {', '.join(SUPPORTED_NAMES)}."
    )


def completed(config: dict, architecture: Architecture) -> dict:
    """A copy of config.json with the entries transformers would fill in.

    transformers 5 keeps `rope_theta` and the scaling inside `rope_parameters` (for Gemma one per kind of layer);
    in the copy they stand as `rope_theta`, `rope_scaling` and `rope_local_base_freq`, as in older files.
    """
    given = {key: value for key, value in config.items() if value is not None}
    filled: dict = {"rope_theta": 10_000.0, "rope_scaling": None} | architecture.defaults | _flat_rope(given) | given
    if "num_key_value_heads" not in filled:
        filled["num_key_value_heads"] = filled["num_attention_heads"]
    if "head_dim" not in filled:
        filled["head_dim"] = filled["hidden_size"] // filled["num_attention_heads"]
    return filled


def _flat_rope(config: dict) -> dict:
    rope = config.get("rope_parameters", {})
    everywhere = rope.get("full_attention", rope)
    flat = {"rope_theta": everywhere["rope_theta"]} if "rope_theta" in everywhere else {}
    if rope:
        flat["rope_scaling"] = {key: value for key, value in everywhere.items() if key != "rope_theta"}
    if "sliding_attention" in rope:
        flat["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    return flat


def refuse_variants(architecture: Architecture, config: dict) -> None:
    """Raise UnsupportedArchitecture with every setting of a completed config that GGUF cannot carry."""
    reasons = [
        f"{key} is {config[key]!r}, only {value!r} can be carried over"
        for key, value in architecture.fixed.items()
        if key in config and config[key] != value
    ]
    missing = [key.config for key in architecture.keys if not key.optional and config.get(key.config) is None]
    if missing:
        reasons.append(f"config.json has no {', '.join(sorted(set(missing)))}")
    if not missing:
        reasons += architecture.refuse(config)
    if reasons:
        raise UnsupportedArchitecture(f"This {config['model_type']} model has no faithful GGUF: {'; '.join(reasons)}.")
