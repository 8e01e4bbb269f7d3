"""A model in memory, and everything the rest of the kit needs to know about it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper

from .families.base import Family


@dataclass(frozen=True)
class Loaded:
    """A model in memory and everything later wings need to know about it."""

    name: str  # as the user gave it
    source: str  # one sentence: where it was found
    folder: Path  # the model folder it was opened from: config.json, tokenizer, safetensors
    config: dict[str, Any]  # config.json, as mlx-lm or mlx-vlm read it
    module: nn.Module
    tokenizer: TokenizerWrapper
    family: Family
    checkpoint_dtype: mx.Dtype  # the float type of the weights on disk; merged exports return to it
    dtype: mx.Dtype  # the float type they have in memory
    max_seq_length: int  # tokens
    trust_remote_code: bool = False  # whether Python in the folder may run, here and in whatever opens it again
    tokenizer_digest: str = ""  # of `tokenizer` as the model folder has it; "" where it came from another folder
    adapters_folder: Path | None = None  # that brought a tokenizer of its own

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer was opened from."""
        return self.adapters_folder or self.folder


class HoldsLoaded(Protocol):
    """What is asked of a model that people hold: `FastModel` is one."""

    loaded: Loaded


def loaded_in(model: HoldsLoaded, taker: str) -> Loaded:
    """What is known of `model`. Raises TypeError for what `taker` was given in its place, such as its tokenizer."""
    try:
        return model.loaded
    except AttributeError:
        raise TypeError(
            f"{taker} takes a model, and was given a {type(model).__name__}; `model, tokenizer = "
            "FastModel.from_pretrained(name)` makes one, and gives it first."
        ) from None
