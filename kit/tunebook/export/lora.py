"""Adapters alone, as mlx-lm saves them (stock `mlx_lm.load(base, adapter_path=folder)` opens the folder) or as PEFT.

Modules trained whole go into the same file. mlx-lm (0.32) refuses such a file rather than lose them; it is read by
`adapters.load_adapters`, by PEFT when it is in PEFT's format, and for other programs there are the merged weights.
"""

import json
from pathlib import Path
from typing import Literal, cast

import mlx.core as mx
from mlx_lm.tuner.lora import LoRAEmbedding

from ..adapters import MLX_FILE, PEFT_FILE, describe, is_adapter, trained_whole
from ..atomic import new_folder
from ..loader import Loaded
from ..peft_format import Moves, to_peft
from ..tensors import flat, save_tensors

AdapterFormat = Literal["mlx", "peft"]


def save_lora(loaded: Loaded, folder: Path | str, format: AdapterFormat = "mlx") -> Path:
    """Write the adapters' tensors and `adapter_config.json`.

    Raises ValueError when the model has no adapters, and for those PEFT or transformers would not find the place of.
    """
    adapters = describe(loaded.module)
    if adapters is None:
        raise ValueError("This model has no adapters to save; call FastModel.get_peft_model before training.")
    whole = trained_whole(loaded.module)
    arrays = {
        name: array for name, array in flat(loaded.module.parameters()).items() if is_adapter(name) or name in whole
    }
    document = {"base_model_name_or_path": loaded.name, **adapters}
    if whole:
        document["modules_to_save"] = sorted({name.rpartition(".")[0] for name in whole})
    file = MLX_FILE
    if format == "peft":
        names = loaded.family.transformers_names
        _check_names(loaded, adapters["lora_parameters"]["keys"], names)
        embeddings = {path for path, layer in loaded.module.named_modules() if isinstance(layer, LoRAEmbedding)}
        document, arrays = to_peft(document, arrays, embeddings, names)
        file = PEFT_FILE
    folder = Path(folder)
    with new_folder(folder) as partial:
        save_tensors(partial / file, arrays)
        (partial / "adapter_config.json").write_text(json.dumps(document, indent=2) + "\n")
    return folder


def _check_names(loaded: Loaded, paths: list[str], names: Moves) -> None:
    """Raise ValueError for layers whose name in transformers is not known.

    That is what the checkpoint calls them, unless the family has `names` of its own.
    """
    if names:
        return
    if names is None:
        raise ValueError("What transformers calls the layers of this model is not known here. Use format='mlx'.")
    files = loaded.folder.glob("model*.safetensors")
    there = {name for file in files for name in cast("dict[str, mx.array]", mx.load(str(file)))}  # names; read lazily
    elsewhere = [path for path in paths if f"{path}.weight" not in there]
    if elsewhere:
        raise ValueError(
            f"{len(elsewhere)} adapted layers, the first {elsewhere[0]}, are called otherwise in the checkpoint, so "
            "PEFT would not find them. Use format='mlx', or save_pretrained_merged."
        )
