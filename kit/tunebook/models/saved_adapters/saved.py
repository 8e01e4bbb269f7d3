"""What a folder of adapters holds, by the names that the model here has, whichever program wrote it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...model_files.adapter_files import read_settings, read_tensors
from .mlx_settings import from_mlx
from .peft_format import NAMES, Moves, base_of_copy, from_peft

Tensors = dict[str, mx.array]

_OLD_LEAVES = {"A": "lora_a", "B": "lora_b"}  # mlx-vlm's names, once


@dataclass(frozen=True)
class Saved:
    """The content of a folder, by the names the model here has."""

    form: dict[str, Any]  # mlx-lm's settings
    adapters: dict[str, Tensors]  # path -> lora_a, lora_b and DoRA's m
    whole: Tensors
    copies: Tensors  # what the file says the base's own parameters are
    peft: dict[str, Any] | None  # PEFT's settings, where it wrote the folder
    head_agrees: bool = False  # the file had a head as well, and it is the embedding once more


def read_saved(folder: Path, names: Moves) -> Saved:
    """The content of `folder`. Raises ValueError where nothing in it was trained, and what reading its files raises."""
    settings = read_settings(folder)
    peft = settings if "peft_type" in settings else None
    form = {} if peft else from_mlx(settings)
    tensors = read_tensors(folder, of_peft=peft is not None)
    if peft:
        form, tensors = from_peft(settings, tensors, [(there, here) for here, there in names or ()])
    if not tensors:
        raise ValueError(f"The file of adapters in {folder} holds no tensors; save the adapters again.")
    adapters: dict[str, Tensors] = {}
    whole, copies = {}, {}
    for name, tensor in sorted(tensors.items()):
        path, _, leaf = name.rpartition(".")
        base = base_of_copy(name) if peft else None
        leaf = leaf if peft else _OLD_LEAVES.get(leaf, leaf)
        if base is not None:
            copies[base] = tensor
        elif leaf in NAMES and form["fine_tune_type"] != "full":
            adapters.setdefault(path, {})[leaf] = tensor
        else:
            whole[name] = tensor
    if not adapters and not whole:
        raise ValueError(f"The file of adapters in {folder} holds nothing that was trained; save the adapters again.")
    return Saved(form, adapters, whole, copies, peft)
