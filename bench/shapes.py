"""Models of released shapes with random weights, for speed and memory do not depend on what the weights are."""

import json
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, llama
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

SHAPES = {
    "smollm2": {  # SmolLM2-135M
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
    },
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
ARCHITECTURES = {"llama": llama, "gemma3_text": gemma3_text}


def write_folder(folder: Path, shape: str, **others: int) -> Path:
    """Random weights of `shape` in float32, a config and a tokenizer of made-up words, in `folder`.

    `others` are settings that take the place of the shape's own.
    """
    config = SHAPES[shape] | others
    architecture = ARCHITECTURES[config["model_type"]]
    mx.random.seed(0)
    module = architecture.Model(architecture.ModelArgs.from_dict(config))
    weights = dict(tree_flatten(module.parameters()))
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    config = config | {"eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    words = {"<end>": 0} | {f"word{number}": number for number in range(1, config["vocab_size"])}
    Tokenizer(WordLevel(words, unk_token="<end>")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "pad_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
