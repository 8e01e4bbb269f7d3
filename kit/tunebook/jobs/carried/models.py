"""A model by its name and place, and all of it that a run changes or a person changed: weights, adapters, tokenizer.

The weights that are not trained stay where they are; whether those that are found elsewhere are the same, the run's
identity tells (`train/kept/identity.py`).
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from ...events import Event
from ...export.tokenizer import save_beside_adapters
from ...models.loaded import Loaded
from ...models.loader import load
from ...models.resize import added_rows, resize
from ...models.saved_adapters.exact import form_of, put_on
from ...models.tensors import flat, save_tensors
from ..work import HoldsModel

WEIGHTS, TABLES, TOKENIZER = "trained.safetensors", "tables.safetensors", "tokenizer"


@dataclass(eq=False)
class CarriedModel:
    """A model as a job folder had it, for a run to train."""

    loaded: Loaded
    gradient_checkpointing: bool | Literal["auto"]
    run_events: Sequence[Event] = ()


def write(model: HoldsModel, folder: Path, home: Path) -> dict[str, Any]:
    """Write into `folder` what is not where the model was found; gives the rest as plain values.

    The place of the model is kept as it is seen from `home`, too.
    """
    loaded = model.loaded
    place, config = _place_of(loaded), json.loads((loaded.folder / "config.json").read_text())
    trained, added = flat(loaded.module.trainable_parameters()), added_rows(loaded)
    save_tensors(folder / WEIGHTS, trained)
    if added:  # rows for new tokens that are not trained are in no file of the model
        everything = flat(loaded.module.parameters())
        tables = [name for name in everything if name not in trained and _is_of_table(name, loaded)]
        save_tensors(folder / TABLES, {name: everything[name] for name in tables})
    (folder / TOKENIZER).mkdir()
    save_beside_adapters(loaded, folder / TOKENIZER)
    quantization = loaded.config.get("quantization") if "quantization" not in config else None
    return {
        "name": loaded.name,
        "place": str(place),
        "from here": os.path.relpath(place, home),
        "bits": quantization["bits"] if quantization else None,
        "dtype": str(loaded.dtype).rpartition(".")[2],
        "max_seq_length": loaded.max_seq_length,
        "trust_remote_code": loaded.trust_remote_code,
        "text_only": True if "vision_config" in config and loaded.family.processor is None else None,
        "added rows": bool(added),
        "gradient_checkpointing": model.gradient_checkpointing,
        **form_of(loaded.module),
    }


def read(plain: Mapping[str, Any], folder: Path, home: Path) -> CarriedModel:
    """The model that `write` was given, found where it lies beside `home`, where it was, or by its name.

    Raises what `models.loader.load` does.
    """
    place = next((place for place in (home / plain["from here"], Path(plain["place"])) if place.exists()), None)
    loaded = load(
        plain["name"] if place is None else os.path.normpath(place),
        max_seq_length=plain["max_seq_length"],
        dtype=plain["dtype"],
        load_in_4bit=plain["bits"] == 4,
        load_in_8bit=plain["bits"] == 8,
        trust_remote_code=plain["trust_remote_code"],
        text_only=plain["text_only"],
        adapters_folder=folder / TOKENIZER,
    )
    if plain["added rows"]:
        resize(loaded)
    put_on(loaded.module, plain, _tensors(folder / WEIGHTS))
    if (folder / TABLES).exists():
        loaded.module.load_weights(list(_tensors(folder / TABLES).items()), strict=False)
    mx.eval(loaded.module.parameters())
    return CarriedModel(replace(loaded, name=plain["name"]), plain["gradient_checkpointing"])


def _place_of(loaded: Loaded) -> Path:
    """What is to be opened again: the .gguf file, where the folder was made of one, else the folder."""
    given = Path(loaded.name).expanduser()
    return (given if os.path.isfile(given) else loaded.folder).absolute()


def _is_of_table(name: str, loaded: Loaded) -> bool:
    return name.startswith(loaded.family.tables.paths) or "lm_head" in name.split(".")


def _tensors(file: Path) -> dict[str, mx.array]:
    arrays = mx.load(str(file))
    assert isinstance(arrays, dict)
    mx.eval(arrays)  # now: MLX would read the file when they are first used
    return arrays
