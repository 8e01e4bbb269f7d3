"""A model folder with random weights: a shape goes in, what `mlx_lm.load` opens comes out, with made-up words.

Speed and memory do not depend on what the weights are. Nothing is downloaded.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models import gemma3_text, llama
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from ...models.tensors import flat, save_tensors

SMOLLM2 = {  # SmolLM2-135M
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
}
_ARCHITECTURES = {"llama": llama, "gemma3_text": gemma3_text}


def random_model(folder: Path, shape: dict[str, Any], dtype: mx.Dtype) -> Path:
    """Write random weights of `shape` in `dtype`, a config and a tokenizer of made-up words to `folder`; return it."""
    architecture = _ARCHITECTURES[shape["model_type"]]
    mx.random.seed(0)
    module = architecture.Model(architecture.ModelArgs.from_dict(shape))
    module.set_dtype(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "model.safetensors", flat(module.parameters()))
    ends = {"eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
    config = shape | ends | {"torch_dtype": str(dtype).removeprefix("mlx.core.")}
    (folder / "config.json").write_text(json.dumps(config))
    words = {"<end>": 0} | {f"word{number}": number for number in range(1, shape["vocab_size"])}
    Tokenizer(WordLevel(words, unk_token="<end>")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "pad_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
