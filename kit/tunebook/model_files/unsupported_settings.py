"""The settings of a config.json that the class here has no place for, each told with its value and what the class has.

Nothing is read or translated here: in come what transformers made of the config, and the entries that a class takes.
"""

import math
from collections.abc import Collection, Iterator

from transformers import PreTrainedConfig

from .transformers_config import Config, own_fields

# The rotary embeddings that mlx-lm (0.32) computes as transformers does, of the models it is compared with in
# `tests/model_files/test_checkpoint_config.py`; in its other models nothing is checked but what `_ANYWHERE` says.
ROPE = {
    "llama": ("default", "linear", "dynamic", "llama3", "yarn"),
    "mistral": ("default", "linear", "dynamic", "llama3", "yarn"),
    "qwen2": ("default", "linear", "dynamic", "llama3", "yarn"),
    "qwen3": ("default", "linear", "dynamic", "llama3", "yarn"),
    "smollm3": ("default", "linear", "dynamic", "llama3", "yarn"),
    "qwen3_moe": ("default",),
    "gemma2": ("default",),
    "gemma3_text": ("default", "linear", "llama3", "yarn"),
    "phi3": ("default", "longrope"),
}
# Entries that leave the numbers of a trained model alone, or that are handled by themselves.
_HARMLESS = (
    *("vocab_size", "max_position_embeddings", "initializer_range", "use_cache", "pretraining_tp"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "attention_dropout", "resid_pdrop", "embd_pdrop"),
    *("output_router_logits", "router_aux_loss_coef", "rope_parameters"),
    *("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
)
# What changes the numbers of any model: the values that change nothing.
_ANYWHERE = {
    "use_bidirectional_attention": (None, False),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logit_scale": (None, 1, 1.0),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
}


class UnreadableConfig(ValueError):
    """A config whose model would be another one here than in transformers."""


def unlike_mlx_lm(
    config: Config, takes: Collection[str], reads: PreTrainedConfig, rope: dict[str, Config]
) -> list[str]:
    """All settings that a class of mlx-lm which is compared with transformers has no place for."""
    wrong = []
    for field in own_fields(reads):
        if field.name in takes or field.name in _HARMLESS:
            continue
        value = vars(reads)[field.name]
        if value != field.default and value not in _ANYWHERE.get(field.name, ()):
            wrong.append(f"{field.name} is {value!r} (mlx-lm has {field.default!r})")
    wrong += [
        f"{name} is None (mlx-lm needs a number)"
        for name in ("attn_logit_softcapping", "final_logit_softcapping")
        if name in takes and name in config and config[name] is None
    ]
    return wrong + list(_wrong_ropes(config["model_type"], config, reads, rope))


def not_taken(takes: Collection[str], reads: PreTrainedConfig, rope: dict[str, Config]) -> list[str]:
    """The settings known to change the numbers of any model that a class has no place for."""
    said = vars(reads)
    wrong = [
        f"{name} is {said[name]!r}"
        for name, neutral in _ANYWHERE.items()
        if name in said and name not in takes and said[name] not in neutral
    ]
    scaled = [each for each in rope.values() if each.get("rope_type", "default") not in ("default", "mrope")]
    if scaled and not {"rope_scaling", "rope_parameters"} & set(takes):
        wrong.append(f"rope_type is {scaled[0]['rope_type']!r}")
    return wrong


def _wrong_ropes(kind: str, config: Config, reads: PreTrainedConfig, rope: dict[str, Config]) -> Iterator[str]:
    for layer, each in rope.items():
        named, allowed = each.get("rope_type", "default"), ROPE[kind] if layer == "full_attention" else ("default",)
        if named not in allowed:
            yield f"rope_type of {layer} is {named!r} (mlx-lm has {', '.join(allowed)})"
        part = each.get("partial_rotary_factor", 1.0)
        if kind != "phi3" and part not in (None, 1, 1.0):
            yield f"partial_rotary_factor is {part!r} (mlx-lm has 1.0)"
        usual = {"yarn": _usual_factor_of_yarn, "longrope": _usual_factor_of_longrope}.get(named)
        given = each.get("attention_factor")
        if usual is not None and given is not None and not math.isclose(given, usual(each, config), rel_tol=1e-6):
            yield f"attention_factor is {given!r} (mlx-lm has {usual(each, config):.6g})"
        if each.get("truncate", True) is not True:
            yield f"truncate is {each['truncate']!r} (mlx-lm has True)"
        if named == "yarn" and bool(each.get("mscale")) != bool(each.get("mscale_all_dim")):
            yield "mscale and mscale_all_dim are not given together (mlx-lm uses either alone)"
    if kind == "gemma3_text":
        pattern = window_pattern(config, reads.layer_types)
        if pattern > len(reads.layer_types):
            yield "no layer sees all tokens (mlx-lm needs one)"


def _usual_factor_of_yarn(rope: Config, _: Config) -> float:
    def scale(by: float) -> float:
        return 1.0 if rope["factor"] <= 1 else 0.1 * by * math.log(rope["factor"]) + 1.0

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return scale(rope["mscale"]) / scale(rope["mscale_all_dim"])
    return scale(1.0)


def _usual_factor_of_longrope(rope: Config, config: Config) -> float:
    first = rope["original_max_position_embeddings"]
    factor = config["max_position_embeddings"] / first
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(first))


def window_pattern(config: Config, layer_types: list[str]) -> int:
    """Every how many layers one sees all tokens. Raises UnreadableConfig where they are not evenly spaced."""
    full = [index + 1 for index, kind in enumerate(layer_types) if kind == "full_attention"]
    pattern = full[0] if full else len(layer_types) + 1
    if full != list(range(pattern, len(layer_types) + 1, pattern)):
        raise UnreadableConfig(
            f"config.json asks for what mlx-lm does not do for {config['model_type']}, and it would be another model "
            f"here: layers {full} of {len(layer_types)} see all tokens (mlx-lm has every n-th). Take a model without."
        )
    return pattern
