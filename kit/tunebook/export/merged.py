"""Merged weights: a model folder with the adapters folded in, which mlx-lm and, in floats, transformers open.

The live model is only read. Weights are merged and written shard by shard, each array by itself, so beside the model a
merge needs the memory of one shard and one layer.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..machine.progress_bars import progress
from ..model_files.checkpoint_config import translated
from ..model_files.generation_config import FILE as GENERATION
from ..model_files.trusted import read_settings, without_code
from ..models.families.quirks import is_of_language
from ..models.loaded import Loaded
from ..models.resize import added_rows, set_vocabulary
from ..models.tensors import flat, number, save_tensors
from .quantize import Quantization, quantize
from .target.companions import copy_companions
from .tokenizer import is_changed, save_tokenizer
from .weights import merged_copy

SHARD_BYTES = 2_000_000_000


def save_merged(
    loaded: Loaded,
    folder: Path | str,
    dtype: mx.Dtype | None = None,
    *,
    quantization: Quantization | None = None,
) -> Path:
    """Write the model with its adapters merged into an empty folder, in `dtype`, quantized from there if asked for.

    The folder is made where it is missing. None takes the float type of the checkpoint; float32 checkpoints keep
    float32. Raises ValueError for weights float16 cannot hold.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = dtype or loaded.checkpoint_dtype
    merged, config = merged_copy(loaded.module, dtype), _config(loaded, dtype)
    if quantization is not None:
        only = is_of_language if loaded.family.library == "mlx-vlm" else None
        merged, config = quantize(merged, config, quantization, only)
    arrays = flat(merged.parameters())
    del merged  # so that an array is gone when its shard is written
    _save_shards(arrays, folder)
    _save_companions(loaded, folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def _save_shards(arrays: dict[str, mx.array], folder: Path) -> None:
    """Write `arrays`, taking them out; they are lazy: shapes now, numbers when their shard is written."""
    shards = list(_shards({name: array.nbytes for name, array in arrays.items()}))
    index: dict[str, str] = {}
    total = sum(array.nbytes for array in arrays.values())
    for position, names in enumerate(progress(shards, "Merging"), start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{position:05d}-of-{len(shards):05d}.safetensors"
        save_tensors(folder / file, {name: _evaluated(name, arrays.pop(name)) for name in names})
        index |= dict.fromkeys(names, file)
        mx.clear_cache()
    if len(shards) > 1:
        document = {"metadata": {"total_size": total}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(document, indent=2) + "\n")


def _evaluated(name: str, array: mx.array) -> mx.array:
    """`array`, computed by itself: in one graph with others, all their intermediate results would be alive together."""
    mx.eval(array)
    if array.dtype == mx.float16 and not number(mx.isfinite(array).all()):
        raise ValueError(
            f"{name} holds values that float16, which ends at 65504, cannot; use dtype='bfloat16' or 'float32'."
        )
    return array


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


def _save_companions(loaded: Loaded, folder: Path) -> None:
    """The tokenizer, the chat template in use and the generation settings."""
    copy_companions(loaded, folder)
    save_tokenizer(loaded, folder)
    settings = folder / GENERATION
    ends = sorted(loaded.tokenizer.eos_token_ids)
    if settings.exists() and is_changed(loaded):
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": ends}, indent=2) + "\n")
    if not settings.exists():
        ids = {"bos_token_id": loaded.tokenizer.bos_token_id, "eos_token_id": ends}
        known = {name: value for name, value in ids.items() if value not in (None, [])}
        settings.write_text(json.dumps(known, indent=2) + "\n")


def _config(loaded: Loaded, dtype: mx.Dtype) -> dict[str, Any]:
    """The model's own config.json, in words every program reads alike, its float type brought up to date.

    Its quantization is gone with the merge.
    """
    config = translated(read_settings(loaded.folder / "config.json"), loaded.family.library)
    if not loaded.trust_remote_code:
        config = without_code(config)  # it is not copied
    for key in ("quantization", "quantization_config", "dtype", "torch_dtype"):
        config.pop(key, None)
    if added_rows(loaded):
        set_vocabulary(config, loaded.family.tables.tokens or 0)
    return {**config, **loaded.family.config_additions, "torch_dtype": str(dtype).removeprefix("mlx.core.")}
