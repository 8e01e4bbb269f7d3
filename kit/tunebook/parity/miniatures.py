"""A small model of a real one's kind: its architecture and tokenizer, few layers, random weights.

The lab compares two programs on the same weights, and random ones show a difference as well as trained ones do, in
seconds. Nothing such a model writes makes sense.
"""

import json
import math
import shutil
from pathlib import Path

import mlx.core as mx
from mlx_lm.utils import load_model

from ..models.fetch import fetch
from ..models.loader import load
from ..models.tensors import flat, save_tensors

_COMPANIONS = ("*.json", "*.jinja", "*.model", "*.txt")


def miniature(name: str | Path, folder: Path | str, *, layers: int = 2, width: int = 64, seed: int = 0) -> Path:
    """Write a model of `layers` layers and D = `width` to `folder`, of the kind `name` is, and return the folder.

    Raises ValueError for a model whose config.json does not name its sizes as Llama's does, or that is quantized.
    """
    source, folder = fetch(str(name)).path, Path(folder)
    if source.is_file():  # a .gguf, which the loader turns into a folder
        source = load(source, say=lambda _: None).folder
    config = json.loads((source / "config.json").read_text())
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width // 4,
        "torch_dtype": "float32",
    }
    missing = [size for size in sizes if size not in config and size not in ("head_dim", "torch_dtype")]
    if missing or "quantization" in config:
        why = "is quantized" if "quantization" in config else f"has no {', '.join(missing)} in its config.json"
        raise ValueError(f"{name} {why}, so no miniature can be made of it.")
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in _COMPANIONS:
        for file in source.glob(pattern):
            if not file.name.endswith(".index.json"):
                shutil.copyfile(file, folder / file.name)
    config = {key: value for key, value in config.items() if key not in ("dtype", "layer_types")} | sizes
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    # With no weights on disk and strict=False, mlx-lm builds the bare model: its parameters' names and shapes.
    shapes = {
        key: array.shape for key, array in flat(load_model(folder, lazy=True, strict=False)[0].parameters()).items()
    }
    keys = mx.random.split(mx.random.key(seed), len(shapes))
    weights = {path: _random(shape, key) for (path, shape), key in zip(shapes.items(), keys, strict=True)}
    save_tensors(folder / "model.safetensors", weights)
    return folder


def _random(shape: tuple[int, ...], key: mx.array) -> mx.array:
    """Matrices of unit gain; vectors, which are norms and biases, near 1."""
    noise = mx.random.normal(shape, key=key)
    return noise / math.sqrt(shape[-1]) if len(shape) > 1 else 1.0 + 0.1 * noise
