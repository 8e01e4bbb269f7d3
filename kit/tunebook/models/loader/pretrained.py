"""The name of a model, or a folder of saved adapters, in; a loaded model out, trainable as it was asked for."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...machine.scratch import recover
from ...model_files.adapter_files import base_of_adapters
from ..adapters import load_adapters
from ..fetch import ModelNotFound
from ..loaded import Loaded
from ..norms import keep_norms_in_float32
from ..resize import resize
from .loading import load


def load_pretrained(
    name: str | Path,
    *,
    full_finetuning: bool,
    resize_embeddings: bool,
    random_state: int,
    load_in_4bit: bool,
    load_in_8bit: bool,
    revision: str | None,
    **options: Any,
) -> Loaded:
    """Load a model, with the adapters that `name` holds where it is a folder of them; `options` are those of `load`.

    Trainable are the adapters, everything with `full_finetuning`, else nothing. Raises ValueError for
    `full_finetuning` of what cannot be changed, and what `load`, `load_adapters` and `resize` raise.
    """
    place = Path(name).expanduser().absolute()
    if os.path.isdir(place):  # false for a name longer than files have, where Path.is_dir raises
        recover(place)
    base = base_of_adapters(Path(name)) if os.path.isdir(name) else None  # None: these are no adapters
    if full_finetuning and (load_in_4bit or load_in_8bit):
        raise ValueError("full_finetuning needs weights that can be changed; leave out load_in_4bit / load_in_8bit.")
    if full_finetuning and base is not None:
        raise ValueError(f"{name} holds adapters; leave out full_finetuning, or merge them and load the result.")
    mx.random.seed(random_state)
    try:
        loaded = load(
            name if base is None else base.name,
            load_in_4bit=load_in_4bit,
            load_in_8bit=load_in_8bit,
            revision=revision or (base.revision if base else None),
            adapters_folder=Path(name) if base is not None else None,
            **options,
        )
    except ModelNotFound as error:
        if base is None:
            raise
        raise ModelNotFound(f"{error} The adapter_config.json of {name} names it as their base.") from error
    added_rows = resize(loaded) if resize_embeddings or loaded.adapters_folder is not None else 0
    if base is not None:
        load_adapters(loaded.module, Path(name), loaded.family.transformers_names, added_rows=added_rows)
        return replace(loaded, source=f"{loaded.source}, with the adapters in {name}{base.note}")
    if full_finetuning:
        keep_norms_in_float32(loaded.module)
    else:
        loaded.module.freeze()
    return loaded
