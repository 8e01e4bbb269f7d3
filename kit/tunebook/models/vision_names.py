"""A vision model by mlx-vlm, also as transformers 5 saves it: names that mlx-vlm does not know are said in its words.

Files are opened by MLX and nothing else; mlx-vlm's own opening would write into one that MLX refuses.
"""

from pathlib import Path
from typing import cast

import mlx.core as mx
import mlx.nn as nn

from ..model_files.trusted import read_settings
from .layer_calls import with_globals

_TOWER, _INNER, _HEAD = "vision_tower.", "vision_model.", "head."


def open_vision_model(folder: Path, *, trust_remote_code: bool) -> nn.Module:
    """The model in a folder that `trusted.openable` made; its weights are not read yet."""
    from mlx_vlm.utils import load_model  # seconds, which a text model needs none of

    is_gemma = read_settings(folder / "config.json").get("model_type") == "gemma3"
    load = with_globals(load_model, {"_load_safetensors": _read_gemma if is_gemma else _read})
    return load(folder, lazy=True, trust_remote_code=trust_remote_code)


def _read(file: str) -> dict[str, mx.array]:
    return cast("dict[str, mx.array]", mx.load(file))


def _read_gemma(file: str) -> dict[str, mx.array]:
    """Its vision tower is one module deeper in mlx-vlm (0.7), and has no use for the head that SigLIP has."""
    said = {}
    for name, array in _read(file).items():
        before, joined, inner = name.partition(_TOWER)
        inner = inner.removeprefix(_INNER)
        if joined and not inner.startswith(_HEAD):
            said[before + _TOWER + _INNER + inner] = array
        elif not joined:
            said[name] = array
    return said
