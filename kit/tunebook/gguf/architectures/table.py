"""The table: one row per architecture, how it is named and arranged in config.json and in GGUF.

To support another one, add an `Architecture`. What a GGUF cannot express for it (an activation, a layer pattern
llama.cpp assumes) goes into `fixed` or `refuse`, so that a model that differs is refused, not misread.
"""

import gguf

from .gemma import GEMMA2, GEMMA3
from .parts import ATTENTION, ENDS, EXPERTS, GATED_MLP, HEAD_NORMS, KEYS, NORMS, PAIRED_ATTENTION
from .rules import Architecture, Key, TensorRule


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
        keys=KEYS,
        tensors=ENDS + NORMS + PAIRED_ATTENTION + GATED_MLP,
        fixed={"hidden_act": "silu"},
        defaults={"rms_norm_eps": 1e-6},
        rope_scaling=("linear", "llama3", "yarn"),
        bias_flags={"attention_bias": "self_attn.q_proj", "mlp_bias": "mlp.gate_proj"},
        refuse=_refuse_sliding_layers,
    ),
    Architecture(
        arch=gguf.MODEL_ARCH.QWEN2,
        model_types=("qwen2",),
        class_name="Qwen2ForCausalLM",
        keys=KEYS,
        tensors=ENDS + NORMS + ATTENTION + GATED_MLP,
        fixed={"hidden_act": "silu", "use_sliding_window": False},
        defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 32768},
        rope_scaling=("linear", "yarn"),
        refuse=_refuse_qwen2,
    ),
    Architecture(
        arch=gguf.MODEL_ARCH.QWEN3,
        model_types=("qwen3",),
        class_name="Qwen3ForCausalLM",
        keys=KEYS,
        tensors=ENDS + NORMS + ATTENTION + HEAD_NORMS + GATED_MLP,
        fixed={"hidden_act": "silu", "use_sliding_window": False, "attention_bias": False},
        defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "head_dim": 128},
        rope_scaling=("linear", "yarn"),
        refuse=_refuse_sliding_layers,
    ),
    Architecture(
        arch=gguf.MODEL_ARCH.QWEN3MOE,
        model_types=("qwen3_moe",),
        class_name="Qwen3MoeForCausalLM",
        keys=(
            *KEYS,
            Key("expert_count", "num_experts"),
            Key("expert_used_count", "num_experts_per_tok"),
            Key("expert_feed_forward_length", "moe_intermediate_size"),
        ),
        tensors=ENDS + NORMS + ATTENTION + HEAD_NORMS + EXPERTS,
        # llama.cpp has experts in every layer, and always makes the weights of the chosen ones sum to 1.
        fixed={
            "hidden_act": "silu",
            "use_sliding_window": False,
            "attention_bias": False,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
        },
        defaults={
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "norm_topk_prob": False,
        },
        rope_scaling=(),  # mlx-lm (0.32) reads none for this model
        refuse=_refuse_sliding_layers,
    ),
    GEMMA2,
    GEMMA3,
    Architecture(
        arch=gguf.MODEL_ARCH.SMOLLM3,
        model_types=("smollm3",),
        class_name="SmolLM3ForCausalLM",
        keys=KEYS,
        tensors=ENDS + NORMS + PAIRED_ATTENTION + GATED_MLP,
        fixed={"hidden_act": "silu", "use_sliding_window": False, "no_rope_layer_interval": 4},
        defaults={"rms_norm_eps": 1e-6, "rope_theta": 2_000_000.0, "max_position_embeddings": 32768},
        rope_scaling=("linear", "yarn"),
        bias_flags={"attention_bias": "self_attn.q_proj", "mlp_bias": "mlp.gate_proj"},
        refuse=_refuse_smollm3,
        implied=_smollm3_implied,
    ),
    Architecture(
        arch=gguf.MODEL_ARCH.PHI3,
        model_types=("phi3",),
        class_name="Phi3ForCausalLM",
        # llama.cpp reads Phi-3's sliding window and, like mlx-lm, attends to everything.
        keys=(*KEYS, Key("attention.sliding_window", "sliding_window", optional=True)),
        tensors=(
            *ENDS,
            *NORMS,
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
