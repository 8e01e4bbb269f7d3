"""Models of released shapes with random weights, for speed and memory do not depend on what the weights are."""

from pathlib import Path

import mlx.core as mx

from tunebook.parity.speed.random_model import SMOLLM2, random_model

SHAPES = {
    "smollm2": SMOLLM2,
    "gemma3": {  # Gemma 3 270M
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "vocab_size": 262144,
        "max_position_embeddings": 32768,
    },
}


def write_folder(folder: Path, shape: str, **others: int) -> Path:
    """Random weights of `shape` in float32, a config and a tokenizer of made-up words, in `folder`.

    `others` are settings that take the place of the shape's own.
    """
    return random_model(folder, SHAPES[shape] | others, mx.float32)
