"""Whether a config.json can be one: its numbers are numbers, of a size that the weights beside it have room for.

Settings and the shapes of the tensors come in, a refusal that names every one that is wrong comes out. What the
settings mean is not asked here.
"""

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

# Of these a model is made piece by piece, before its weights are looked at.
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "depth")
_SIZES = (
    *("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("n_embd", "n_head", "n_heads", "moe_intermediate_size", "num_experts", "num_local_experts", "n_routed_experts"),
)
_COUNTS = ("max_position_embeddings", "n_positions")  # of no tensor's size
_ABOVE_ZERO = ("rope_theta", "rope_local_base_freq", "query_pre_attn_scalar")
_ROPE = ("rope_scaling", "rope_parameters")
_ROPE_ABOVE_ZERO = (
    *("factor", "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "rope_theta"),
    *("original_max_position_embeddings", "partial_rotary_factor"),
)
_SMALL = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps")
_SECTIONS = ("text_config", "vision_config")
_MAY_BE_ANY = ("time_step_limit",)  # mamba's, which has no upper end


def check_config(config: Any, shapes: Collection[tuple[int, ...]], path: Path) -> None:
    """Raise ValueError for settings that make no model with tensors of these shapes; `path` is where they stand."""
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__} where settings by name were expected.")
    wrong = list(_wrong(config, layers=len(shapes), size=8 * max(map(math.prod, shapes), default=0)))
    if not isinstance(config.get("model_type"), str):
        wrong.insert(
            0, f"model_type is {_shortly(config.get('model_type'))}, which must be the name of a kind of model"
        )
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"{path} cannot be right: {'; '.join(wrong[:5])}{more}. Download or save the model again.")


def _wrong(config: dict[str, Any], *, layers: int, size: int) -> Iterator[str]:
    """What is wrong in one section and those within; 4-bit weights hold up to eight numbers in one of their own."""
    for name, value in config.items():
        said = f"{name} is {_shortly(value)}"
        if name in _SECTIONS and value is not None:
            if isinstance(value, dict):
                yield from _wrong(value, layers=layers, size=size)
            else:
                yield f"{said}, which must be a section of settings"
        elif name in _ROPE and isinstance(value, dict):
            yield from _wrong_of_rope(value, name)
        elif value is None or isinstance(value, list) or name in _MAY_BE_ANY:
            continue
        elif name in (*_LAYERS, *_SIZES, *_COUNTS):
            most = {**dict.fromkeys(_LAYERS, layers), **dict.fromkeys(_SIZES, size)}.get(name, 1 << 40)
            least = 0 if name in ("num_experts", "num_local_experts", "n_routed_experts") else 1
            if not _is_number(value) or value != int(value) or not least <= value <= most:
                yield f"{said}, which must be a whole number from {least} to {most:,} with these weights"
        elif name in _ABOVE_ZERO:
            if not _is_number(value) or value <= 0:
                yield f"{said}, which must be a number above 0"
        elif name in _SMALL:
            if not _is_number(value) or not 0 <= value <= 1:
                yield f"{said}, which must be a number from 0 to 1"
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{said}, which is no finite number"


def _wrong_of_rope(settings: dict[str, Any], place: str) -> Iterator[str]:
    """What is wrong in the settings of positions, of all layers or of each kind of them."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _wrong_of_rope(value, f"{place}.{name}")
        elif name in _ROPE_ABOVE_ZERO and value is not None and (not _is_number(value) or value <= 0):
            yield f"{place}.{name} is {_shortly(value)}, which must be a number above 0"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e38  # NaN compares as False


def _shortly(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
