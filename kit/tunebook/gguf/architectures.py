"""How each architecture is named and arranged in config.json and in GGUF; both directions read the same table.

To support another one, add an `Architecture` to ARCHITECTURES. What a GGUF cannot express for it (an activation, a
layer pattern llama.cpp assumes) goes into `fixed` or `refuse`, so that a model that differs is refused, not misread.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import gguf
import numpy as np


class UnsupportedArchitecture(ValueError):
    """A model of a kind, or with a setting, that cannot be carried to or from GGUF faithfully."""


@dataclass(frozen=True)
class Key:
    """One hyper-parameter: its GGUF key without the architecture's prefix, and its entry in config.json."""

    gguf: str
    config: str
    kind: type[int] | type[float] = int  # uint32 or float32 in the file
    optional: bool = False  # a config without it is complete


@dataclass(frozen=True)
class TensorRule:
    """How the weight and bias of one module are arranged; the GGUF name comes from gguf's own tensor-name map."""

    module: str  # the module's path; inside `model.layers.N.` unless `once`
    once: bool = False
    heads: str | None = None  # the config entry that counts this projection's heads, where llama.cpp rotates neighbours
    shift: float = 0.0  # added on the way to GGUF

    def to_gguf(self, array: np.ndarray, config: dict) -> np.ndarray:
        """The fp32 array as llama.cpp wants it.

        llama.cpp's "normal" rope rotates neighbouring rows (2i, 2i+1) of a head, the Hugging Face one rows (i, i+d/2):
        the rows of each head are reordered from two halves to pairs, as in llama.cpp's conversion/llama.py, `permute`.
        """
        if self.heads:
            count = config[self.heads]
            halves = array.reshape(count, 2, len(array) // count // 2, *array.shape[1:])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        return array + np.float32(self.shift) if self.shift else array

    def from_gguf(self, array: np.ndarray, config: dict) -> np.ndarray:
        """The inverse of `to_gguf`."""
        if self.heads:
            count = config[self.heads]
            pairs = array.reshape(count, len(array) // count // 2, 2, *array.shape[1:])
            array = pairs.swapaxes(1, 2).reshape(array.shape)
        return array - np.float32(self.shift) if self.shift else array


def _nothing_to_refuse(_config: dict) -> list[str]:
    return []


def _nothing_to_add(_config: dict) -> dict:
    return {}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table."""

    arch: gguf.MODEL_ARCH
    model_types: tuple[str, ...]  # of config.json; the first is the one a .gguf is read as
    class_name: str  # transformers' class, for config.json
    keys: tuple[Key, ...]
    tensors: tuple[TensorRule, ...]
    fixed: dict[str, object] = field(default_factory=dict)  # config entries that may have no other value
    defaults: dict[str, object] = field(default_factory=dict)  # what transformers assumes where config.json is silent
    rope_scaling: tuple[str, ...] = ("linear",)  # the kinds that both sides know
    bias_flags: dict[str, str] = field(default_factory=dict)  # config entry -> the module whose bias it switches on
    refuse: Callable[[dict], list[str]] = _nothing_to_refuse  # reasons why a completed config cannot be carried over
    implied: Callable[[dict], dict] = _nothing_to_add  # config entries llama.cpp does not store but assumes

    @property
    def name(self) -> str:
        """`general.architecture`, and the prefix of the keys."""
        return gguf.MODEL_ARCH_NAMES[self.arch]

    def tensor_names(self, num_hidden_layers: int) -> dict[str, tuple[str, TensorRule]]:
        """Every tensor that may exist: its name in the model folder -> its name in GGUF, and its rule."""
        names = gguf.get_tensor_name_map(self.arch, num_hidden_layers)
        modules = [
            (rule.module if rule.once else f"model.layers.{layer}.{rule.module}", rule)
            for rule in self.tensors
            for layer in range(1 if rule.once else num_hidden_layers)
        ]
        return {
            module + part: (f"{names.get_name(module)}{part}", rule)
            for module, rule in modules
            for part in (".weight", ".bias")
        }

    def required_tensors(self, num_hidden_layers: int, *, tied: bool) -> list[str]:
        """The tensors a model folder must hold; the biases are not among them."""
        return [
            name
            for name in self.tensor_names(num_hidden_layers)
            if name.endswith(".weight") and not (tied and name == "lm_head.weight")
        ]


_ROPE_FREQ_BASE = Key("rope.freq_base", "rope_theta", float)

_KEYS = (
    Key("context_length", "max_position_embeddings"),
    Key("embedding_length", "hidden_size"),
    Key("block_count", "num_hidden_layers"),
    Key("feed_forward_length", "intermediate_size"),
    Key("attention.head_count", "num_attention_heads"),
    Key("attention.head_count_kv", "num_key_value_heads"),
    Key("attention.key_length", "head_dim"),
    Key("attention.value_length", "head_dim"),
    Key("rope.dimension_count", "head_dim"),
    Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", float),
    _ROPE_FREQ_BASE,
    Key("vocab_size", "vocab_size"),
)

_ENDS = (
    TensorRule("model.embed_tokens", once=True),
    TensorRule("model.norm", once=True),
    TensorRule("lm_head", once=True),
)
_NORMS = (TensorRule("input_layernorm"), TensorRule("post_attention_layernorm"))
_GATED_MLP = (TensorRule("mlp.gate_proj"), TensorRule("mlp.up_proj"), TensorRule("mlp.down_proj"))
_ATTENTION = (
    TensorRule("self_attn.q_proj"),
    TensorRule("self_attn.k_proj"),
    TensorRule("self_attn.v_proj"),
    TensorRule("self_attn.o_proj"),
)
_PAIRED_ATTENTION = (
    TensorRule("self_attn.q_proj", heads="num_attention_heads"),
    TensorRule("self_attn.k_proj", heads="num_key_value_heads"),
    TensorRule("self_attn.v_proj"),
    TensorRule("self_attn.o_proj"),
)
_HEAD_NORMS = (TensorRule("self_attn.q_norm"), TensorRule("self_attn.k_norm"))


def _refuse_sliding_layers(config: dict) -> list[str]:
    types = config.get("layer_types") or []
    sliding = [index for index, kind in enumerate(types) if kind != "full_attention"]
    return [f"layer_types makes layers {sliding} something other than full_attention"] if sliding else []


def _refuse_wide_heads(config: dict) -> list[str]:
    derived = config["hidden_size"] // config["num_attention_heads"]
    if config["head_dim"] == derived:
        return []
    return [
        f"head_dim is {config['head_dim']}, but this architecture's is hidden_size / num_attention_heads = {derived}"
    ]


def _refuse_qwen2(config: dict) -> list[str]:
    return _refuse_wide_heads(config) + _refuse_sliding_layers(config)


def _gemma3_attention_scalar(config: dict) -> int:
    """llama.cpp scales by the head width, except in the 62-layer 27B model (src/models/gemma3.cpp)."""
    if config["num_hidden_layers"] == 62:
        return config["hidden_size"] // config["num_attention_heads"]
    return config["head_dim"]


def _refuse_gemma3(config: dict) -> list[str]:
    reasons = []
    scalar = _gemma3_attention_scalar(config)
    if config.get("query_pre_attn_scalar", scalar) != scalar:
        reasons.append(f"query_pre_attn_scalar is {config['query_pre_attn_scalar']}, llama.cpp assumes {scalar}")
    expected = _gemma3_layer_types(config["num_hidden_layers"])
    if config.get("layer_types", expected) != expected:
        reasons.append("layer_types is not llama.cpp's pattern of five sliding layers, then one full one")
    return reasons


def _gemma3_layer_types(num_hidden_layers: int) -> list[str]:
    return ["sliding_attention" if (index + 1) % 6 else "full_attention" for index in range(num_hidden_layers)]


def _gemma3_implied(config: dict) -> dict:
    return {
        "query_pre_attn_scalar": _gemma3_attention_scalar(config),
        "layer_types": _gemma3_layer_types(config["num_hidden_layers"]),
    }


def _smollm3_rope_layers(num_hidden_layers: int) -> list[int]:
    return [int((index + 1) % 4 != 0) for index in range(num_hidden_layers)]


def _refuse_smollm3(config: dict) -> list[str]:
    expected = _smollm3_rope_layers(config["num_hidden_layers"])
    if config.get("no_rope_layers") in (None, expected):
        return _refuse_sliding_layers(config)
    return ["no_rope_layers is not llama.cpp's pattern, every fourth layer without rope"]


def _smollm3_implied(config: dict) -> dict:
    return {"no_rope_layers": _smollm3_rope_layers(config["num_hidden_layers"])}


ARCHITECTURES = (
    Architecture(
        arch=gguf.MODEL_ARCH.LLAMA,
        model_types=("llama", "mistral"),
        class_name="LlamaForCausalLM",
        keys=_KEYS,
        tensors=_ENDS + _NORMS + _PAIRED_ATTENTION + _GATED_MLP,
        fixed={"hidden_act": "silu"},
        defaults={"rms_norm_eps": 1e-6},
        rope_scaling=("linear", "llama3"),
        bias_flags={"attention_bias": "self_attn.q_proj", "mlp_bias": "mlp.gate_proj"},
        refuse=_refuse_sliding_layers,
    ),
    Architecture(
        arch=gguf.MODEL_ARCH.QWEN2,
        model_types=("qwen2",),
        class_name="Qwen2ForCausalLM",
        keys=_KEYS,
        tensors=_ENDS + _NORMS + _ATTENTION + _GATED_MLP,
        fixed={"hidden_act": "silu", "use_sliding_window": False},
        defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 32768},
        refuse=_refuse_qwen2,
    ),
    Architecture(
        arch=gguf.MODEL_ARCH.QWEN3,
        model_types=("qwen3",),
        class_name="Qwen3ForCausalLM",
        keys=_KEYS,
        tensors=_ENDS + _NORMS + _ATTENTION + _HEAD_NORMS + _GATED_MLP,
        fixed={"hidden_act": "silu", "use_sliding_window": False, "attention_bias": False},
        defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "head_dim": 128},
        refuse=_refuse_sliding_layers,
    ),
    Architecture(
        arch=gguf.MODEL_ARCH.GEMMA3,
        model_types=("gemma3_text",),
        class_name="Gemma3ForCausalLM",
        keys=(
            *_KEYS,
            Key("attention.sliding_window", "sliding_window"),
            Key("rope.freq_base_swa", "rope_local_base_freq", float),
        ),
        # Gemma's norms multiply by 1 + weight; llama.cpp stores the sum.
        tensors=(
            TensorRule("model.embed_tokens", once=True),
            TensorRule("model.norm", once=True, shift=1.0),
            TensorRule("lm_head", once=True),
            TensorRule("input_layernorm", shift=1.0),
            TensorRule("post_attention_layernorm", shift=1.0),
            TensorRule("pre_feedforward_layernorm", shift=1.0),
            TensorRule("post_feedforward_layernorm", shift=1.0),
            TensorRule("self_attn.q_norm", shift=1.0),
            TensorRule("self_attn.k_norm", shift=1.0),
            *_ATTENTION,
            *_GATED_MLP,
        ),
        fixed={
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": False,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "sliding_window_pattern": 6,
        },
        defaults={
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 131072,
            "head_dim": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "sliding_window": 4096,
        },
        refuse=_refuse_gemma3,
        implied=_gemma3_implied,
    ),
    Architecture(
        arch=gguf.MODEL_ARCH.SMOLLM3,
        model_types=("smollm3",),
        class_name="SmolLM3ForCausalLM",
        keys=_KEYS,
        tensors=_ENDS + _NORMS + _PAIRED_ATTENTION + _GATED_MLP,
        fixed={"hidden_act": "silu", "use_sliding_window": False, "no_rope_layer_interval": 4},
        defaults={"rms_norm_eps": 1e-6, "rope_theta": 2_000_000.0, "max_position_embeddings": 32768},
        bias_flags={"attention_bias": "self_attn.q_proj", "mlp_bias": "mlp.gate_proj"},
        refuse=_refuse_smollm3,
        implied=_smollm3_implied,
    ),
    Architecture(
        arch=gguf.MODEL_ARCH.PHI3,
        model_types=("phi3",),
        class_name="Phi3ForCausalLM",
        # llama.cpp reads Phi-3's sliding window and, like mlx-lm, attends to everything.
        keys=(*_KEYS, Key("attention.sliding_window", "sliding_window", optional=True)),
        tensors=(
            *_ENDS,
            *_NORMS,
            TensorRule("self_attn.qkv_proj"),
            TensorRule("self_attn.o_proj"),
            TensorRule("mlp.gate_up_proj"),
            TensorRule("mlp.down_proj"),
        ),
        fixed={"hidden_act": "silu", "partial_rotary_factor": 1.0, "attention_bias": False},
        defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
        rope_scaling=(),
        refuse=_refuse_wide_heads,
    ),
)

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
        f"GGUF files of architecture {name!r} cannot be read yet; supported are {', '.join(SUPPORTED_NAMES)}."
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
    if "quantization" in config or "quantization_config" in config:
        reasons.append("its weights are already quantized; save it in 16 bits first (merged_16bit)")
    if reasons:
        raise UnsupportedArchitecture(f"This {config['model_type']} model has no faithful GGUF: {'; '.join(reasons)}.")
