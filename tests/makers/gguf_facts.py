"""What stands in a model's folder and in its .gguf, as mlx-lm, transformers and the gguf package read it."""

from pathlib import Path

import gguf
import mlx.core as mx
import mlx_lm
import numpy as np
from transformers import AutoTokenizer

YARN = {"rope_type": "yarn", "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
PROBE = "The quick brown fox says: über 日本 1234, it's <|im_start|>user\nhi<|im_end|>\n and then sleeps."


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    """(T, V): the stored weights computed with in fp32, whatever type they are stored in."""
    model = mlx_lm.load(str(folder))[0]
    model.set_dtype(mx.float32)
    return np.array(model(mx.array([ids]))[0])


def ids_of(folder: Path, text: str) -> list[int]:
    return AutoTokenizer.from_pretrained(folder)(text)["input_ids"]


def weights_of(folder: Path) -> dict[str, mx.array]:
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    return weights


def log_probs(folder: Path, ids: list[int]) -> np.ndarray:
    """Log p of ids[1:] under mlx-lm, in nats."""
    scores = logits(folder, ids)[:-1].astype(np.float64)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores[np.arange(len(ids) - 1), ids[1:]]


def fields(path: Path) -> dict:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensor_types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
