"""Merged weights: a model folder with the adapters folded in, which mlx-lm and transformers open.

The live model is only read. Weights are merged and written shard by shard, so beside the model itself a merge needs
the memory of one shard.
"""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from ..atomic import new_folder
from ..loader import Loaded
from ..progress import progress
from ..tensors import save_tensors
from .weights import merged_weights

SHARD_BYTES = 2_000_000_000

# What belongs to a model folder besides its weights and its config.
_COMPANIONS = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py")


def save_merged(loaded: Loaded, folder: Path | str, dtype: mx.Dtype | None = None) -> Path:
    """Write the model with its adapters merged, in `dtype`.

    None takes the float type of the checkpoint; float32 checkpoints keep float32. The folder appears whole or not at
    all (see `atomic.new_folder`).
    """
    folder = Path(folder)
    dtype = dtype or loaded.checkpoint_dtype
    with new_folder(folder) as partial:
        _save_shards(loaded, dtype, partial)
        _copy_companions(loaded, partial)
        (partial / "config.json").write_text(json.dumps(_config(loaded, dtype), indent=2) + "\n")
    return folder


def _save_shards(loaded: Loaded, dtype: mx.Dtype, folder: Path) -> None:
    arrays = dict(merged_weights(loaded.module, dtype))  # lazy: shapes now, numbers when their shard is written
    shards = list(_shards({name: array.nbytes for name, array in arrays.items()}))
    index: dict[str, str] = {}
    total = sum(array.nbytes for array in arrays.values())
    for number, names in enumerate(progress(shards, "Merging"), start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors(folder / file, {name: arrays.pop(name) for name in names})
        index |= dict.fromkeys(names, file)
        mx.clear_cache()
    if len(shards) > 1:
        document = {"metadata": {"total_size": total}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(document, indent=2) + "\n")


def _shards(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Names in order, grouped so that each group stays within SHARD_BYTES where its tensors allow."""
    group, filled = [], math.inf
    for name, size in sizes.items():
        if filled + size > SHARD_BYTES:
            if group:
                yield group
            group, filled = [], 0
        group.append(name)
        filled += size
    yield group


def _copy_companions(loaded: Loaded, folder: Path) -> None:
    for pattern in _COMPANIONS:
        for file in loaded.folder.glob(pattern):
            if not file.name.endswith(".safetensors.index.json"):
                shutil.copyfile(file, folder / file.name)
    template = loaded.tokenizer.chat_template
    if template is not None:  # the one in use, which from_pretrained may have been given
        (folder / "chat_template.jinja").write_text(template)


def _config(loaded: Loaded, dtype: mx.Dtype) -> dict:
    """The model's own config.json, its float type brought up to date and its quantization gone with the merge."""
    config = json.loads((loaded.folder / "config.json").read_text())
    for key in ("quantization", "quantization_config", "dtype", "torch_dtype"):
        config.pop(key, None)
    return config | loaded.family.config_additions | {"torch_dtype": str(dtype).removeprefix("mlx.core.")}
