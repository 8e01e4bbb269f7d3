"""Five models of released shapes whose weights are zeros that take no memory, for nothing is computed with them.

A model comes with the kit's family for it. A family finds out about its model by computing, so what it would find is
set here; a change to what the families of the kit keep in themselves is one here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models import gemma3_text, llama, qwen3_5
from mlx_vlm.models import qwen3_vl
from shapes import SHAPES

from tunebook.config import LoraConfig
from tunebook.data.encoded import Batch, Encoded
from tunebook.models.adapters import add_adapters
from tunebook.models.families.base import Family, Tables
from tunebook.models.families.head import projection
from tunebook.models.families.placeholders import MediaTokens
from tunebook.models.families.quirks import quirks_of
from tunebook.models.families.text import TextFamily
from tunebook.models.families.vision import VisionFamily

ROWS, TOKENS = 4, 1024  # of a micro-batch; all are predicted
IMAGE_TOKEN, IMAGE_START = 151655, 151652  # Qwen3-VL's
GRID = (1, 32, 32)  # patches of the picture in each row of a vision model, four to a token


@dataclass(frozen=True)
class Kind:
    """One of the models."""

    title: str
    make: Callable[[], nn.Module]
    bits: int | None = None  # its weights are quantized to
    packs: bool = True
    reads_images: bool = False
    loops: bool = False  # over tokens, in mlx-lm's step


def _smollm2() -> nn.Module:
    return llama.Model(llama.ModelArgs.from_dict(SHAPES["smollm2"]))


def _llama3() -> nn.Module:
    shape = SHAPES["smollm2"] | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_theta": 500000.0,
        "vocab_size": 128256,
    }
    return llama.Model(llama.ModelArgs.from_dict(shape))


def _gemma3() -> nn.Module:
    shape = SHAPES["gemma3"] | {"hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26}
    return gemma3_text.Model(gemma3_text.ModelArgs.from_dict(shape))


def _qwen3_5() -> nn.Module:
    text = {
        "model_type": "qwen3_5_text",
        "hidden_size": 1024,
        "intermediate_size": 3584,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "linear_num_value_heads": 16,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "full_attention_interval": 4,
        "vocab_size": 248320,
        "tie_word_embeddings": True,
    }
    return qwen3_5.Model(qwen3_5.ModelArgs.from_dict({"model_type": "qwen3_5", "text_config": text}))


def _qwen3_vl() -> nn.Module:
    text = {
        "model_type": "qwen3_vl_text",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [24, 20, 20]},
        "max_position_embeddings": 262144,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "out_hidden_size": 2048,
        "num_heads": 16,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    }
    config = {"model_type": "qwen3_vl", "text_config": text, "vision_config": vision}
    return qwen3_vl.Model(qwen3_vl.ModelConfig.from_dict(config))


KINDS = {
    "smollm2": Kind("SmolLM2-135M", _smollm2),
    "llama3": Kind("Llama-3.2-3B, 4 bits", _llama3, bits=4),
    "gemma3": Kind("Gemma-3-1B, 262k words", _gemma3),
    "qwen3_5": Kind("Qwen3.5-0.8B, hybrid", _qwen3_5, packs=False, loops=True),
    "qwen3_vl": Kind("Qwen3-VL-2B, with pictures", _qwen3_vl, packs=False, reads_images=True),
}


def adapted(kind: Kind) -> nn.Module:
    """The model in bfloat16 with adapters of rank 16 on all its projections, in training mode."""
    module = kind.make()
    _empty(module, mx.bfloat16)
    if kind.bits is not None:
        nn.quantize(module, group_size=64, bits=kind.bits)
        _empty(module)
    add_adapters(module, LoraConfig(r=16))
    module.train()
    return module


def _empty(module: nn.Module, dtype: mx.Dtype | None = None) -> None:
    """Put zeros of the same shapes in the place of all weights."""
    zeros = tree_map(lambda array: mx.broadcast_to(mx.zeros(1, dtype or array.dtype), array.shape), module.parameters())
    module.update(zeros)
    mx.eval(module.parameters())


def family_of(kind: Kind) -> Family:
    """The kit's family for it, its `__init__`, which computes with the model, left out."""
    if not kind.reads_images:
        text = object.__new__(TextFamily)
        text._head, text.tables = projection, Tables(tokens=None, targets=2**31)
        return text
    vision = object.__new__(VisionFamily)
    vision._has_head, vision.quirks = True, quirks_of("qwen3_vl")
    images = frozenset((IMAGE_TOKEN,))
    vision.media = MediaTokens("<|image_pad|>", IMAGE_TOKEN, IMAGE_TOKEN, of_pixels=images, never_trained=images)
    vision.check = lambda _module: None
    vision.collate = lambda rows, _width: image_batch(rows)
    return vision


def rows_of(kind: Kind, *, packed: bool = False, predicted: int = TOKENS) -> list[Encoded]:
    """The rows of a micro-batch, each of `predicted` tokens and one; `packed` ones are of four documents each."""
    length = predicted + 1
    tokens = np.ones(length, np.int32)
    if kind.reads_images:
        pixels = GRID[1] * GRID[2] // 4
        tokens[1], tokens[2 : 2 + pixels] = IMAGE_START, IMAGE_TOKEN
    segments = np.arange(length, dtype=np.int32) * 4 // length if packed else None
    return [Encoded(tokens=tokens, loss_mask=np.ones(length, bool), segments=segments)] * ROWS


def image_batch(rows: Sequence[Encoded]) -> Batch:
    """What VisionFamily.collate makes of rows with their pictures."""
    tokens = np.stack([row.tokens for row in rows])
    patches, of_a_patch = len(rows) * GRID[1] * GRID[2], 3 * 2 * 16 * 16
    arrays: dict[str, Any] = {
        "tokens": tokens,
        "loss_mask": np.stack([row.loss_mask for row in rows]),
        "attention_mask": np.ones_like(tokens),
        "pixel_values": np.zeros((patches, of_a_patch), np.float32),
        "image_grid_thw": np.array([GRID] * len(rows), np.int64),  # as its processor gives it
    }
    return {name: mx.array(array) for name, array in arrays.items()}
