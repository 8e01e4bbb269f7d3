"""The shape each tensor has by the settings beside it, and the settings no model can have: a .gguf is held to both."""

from collections.abc import Callable

Shape = Callable[[dict], tuple[int, ...]]


def _queries(config: dict) -> int:
    return config["num_attention_heads"] * config["head_dim"]


def _keys(config: dict) -> int:
    return config["num_key_value_heads"] * config["head_dim"]


def _width(config: dict) -> tuple[int, ...]:
    return (config["hidden_size"],)


def _vocabulary(config: dict) -> tuple[int, ...]:
    return (config["vocab_size"], config["hidden_size"])


def _up(config: dict) -> tuple[int, ...]:
    return (config["intermediate_size"], config["hidden_size"])


def _key(config: dict) -> tuple[int, ...]:
    return (_keys(config), config["hidden_size"])


def _head(config: dict) -> tuple[int, ...]:
    return (config["head_dim"],)


def _expert_up(config: dict) -> tuple[int, ...]:
    return (config["moe_intermediate_size"], config["hidden_size"])


# By the module's last names; a bias has the first of a weight's sizes.
_SHAPES: dict[str, Shape] = {
    "embed_tokens": _vocabulary,
    "lm_head": _vocabulary,
    "norm": _width,
    "q_proj": lambda config: (_queries(config), config["hidden_size"]),
    "k_proj": _key,
    "v_proj": _key,
    "qkv_proj": lambda config: (_queries(config) + 2 * _keys(config), config["hidden_size"]),
    "o_proj": lambda config: (config["hidden_size"], _queries(config)),
    "q_norm": _head,
    "k_norm": _head,
    "gate_proj": _up,
    "up_proj": _up,
    "gate_up_proj": lambda config: (2 * config["intermediate_size"], config["hidden_size"]),
    "down_proj": lambda config: (config["hidden_size"], config["intermediate_size"]),
    "gate": lambda config: (config["num_experts"], config["hidden_size"]),
    "experts.gate_proj": _expert_up,
    "experts.up_proj": _expert_up,
    "experts.down_proj": lambda config: (config["hidden_size"], config["moe_intermediate_size"]),
}


def expected_shape(name: str, config: dict, *, is_expert: bool = False) -> tuple[int, ...]:
    """Of a tensor of the model folder, for a completed config."""
    *_, module, part = name.split(".")
    if module.endswith("layernorm"):
        module = "norm"
    shape = _SHAPES[f"experts.{module}" if is_expert else module](config)
    return shape[:1] if part == "bias" else shape


def refuse_settings(config: dict) -> None:
    """Raise ValueError for numbers of heads that do not go together."""
    heads, heads_kv, width = (config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    if heads % heads_kv or width % 2:
        raise ValueError(
            f"This GGUF has {heads} heads of {width} numbers for {heads_kv} of keys; the first must be a multiple of "
            "the last, and the second even."
        )
    experts, used = config.get("num_experts", 1), config.get("num_experts_per_tok", 1)
    if used > experts:
        raise ValueError(f"This GGUF uses {used} experts of {experts}.")
