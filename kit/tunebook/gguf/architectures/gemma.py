"""The rows of the table for Gemma 2 and 3: norms that multiply by 1 + weight, soft caps, and local layers.

llama.cpp fixes the pattern of local and global layers and the scale of the queries in its code; a model that differs is
refused here.
"""

from functools import partial

import gguf

from .parts import ATTENTION, GATED_MLP, KEYS
from .rules import Architecture, Key, TensorRule

# Gemma's norms multiply by 1 + weight; llama.cpp stores the sum.
_ENDS = (TensorRule("model.embed_tokens", once=True), TensorRule("model.norm", once=True, shift=1.0))
_NORMS = (
    TensorRule("input_layernorm", shift=1.0),
    TensorRule("post_attention_layernorm", shift=1.0),
    TensorRule("pre_feedforward_layernorm", shift=1.0),
    TensorRule("post_feedforward_layernorm", shift=1.0),
)
_HEAD_NORMS = (TensorRule("self_attn.q_norm", shift=1.0), TensorRule("self_attn.k_norm", shift=1.0))


def _implied(config: dict, *, period: int, layers_of_27b: int) -> dict:
    """The scale llama.cpp divides by and its kinds of layers (src/models/gemma2.cpp and gemma3.cpp).

    The scale is the head width, except in the models of 27B; every `period`-th layer looks at the whole text.
    """
    layers = config["num_hidden_layers"]
    is_27b = layers == layers_of_27b
    return {
        "query_pre_attn_scalar": (
            config["hidden_size"] // config["num_attention_heads"] if is_27b else config["head_dim"]
        ),
        "layer_types": ["sliding_attention" if (index + 1) % period else "full_attention" for index in range(layers)],
    }


def _refuse(config: dict, *, period: int, layers_of_27b: int) -> list[str]:
    """What the config says otherwise than llama.cpp assumes."""
    implied = _implied(config, period=period, layers_of_27b=layers_of_27b)
    reasons = []
    scalar = implied["query_pre_attn_scalar"]
    if config.get("query_pre_attn_scalar", scalar) != scalar:
        reasons.append(f"query_pre_attn_scalar is {config['query_pre_attn_scalar']}, llama.cpp assumes {scalar}")
    if config.get("layer_types", implied["layer_types"]) != implied["layer_types"]:
        reasons.append(f"layer_types is not llama.cpp's pattern, one full layer in {period} and the others sliding")
    return reasons


GEMMA2 = Architecture(
    arch=gguf.MODEL_ARCH.GEMMA2,
    model_types=("gemma2",),
    class_name="Gemma2ForCausalLM",
    keys=(
        *KEYS,
        # mlx-lm (0.32) attends to everything in every layer; up to this many tokens that is the same.
        Key("attention.sliding_window", "sliding_window"),
        Key("attn_logit_softcapping", "attn_logit_softcapping", float),
        Key("final_logit_softcapping", "final_logit_softcapping", float),
    ),
    tensors=(*_ENDS, *_NORMS, *ATTENTION, *GATED_MLP),  # it has no head of its own
    fixed={"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "tie_word_embeddings": True},
    defaults={
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 8192,
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 256,
    },
    rope_scaling=(),
    refuse=partial(_refuse, period=2, layers_of_27b=46),
    implied=partial(_implied, period=2, layers_of_27b=46),
)

GEMMA3 = Architecture(
    arch=gguf.MODEL_ARCH.GEMMA3,
    model_types=("gemma3_text",),
    class_name="Gemma3ForCausalLM",
    keys=(
        *KEYS,
        Key("attention.sliding_window", "sliding_window"),
        Key("rope.freq_base_swa", "rope_local_base_freq", float),
    ),
    tensors=(*_ENDS, TensorRule("lm_head", once=True), *_NORMS, *_HEAD_NORMS, *ATTENTION, *GATED_MLP),
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
    refuse=partial(_refuse, period=6, layers_of_27b=62),
    implied=partial(_implied, period=6, layers_of_27b=62),
)
