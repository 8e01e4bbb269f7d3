"""Adapters alone, as mlx-lm saves them (stock `mlx_lm.load(base, adapter_path=folder)` opens the folder) or as PEFT.

Modules trained whole go into the same file. mlx-lm (0.32) refuses such a file rather than lose them; it is read by
`models/adapters.py`, by PEFT when it is in PEFT's format, and for other programs there are the merged weights.
"""

import json
from pathlib import Path
from typing import Literal

import mlx.nn as nn
from mlx_lm.tuner.dora import DoRAEmbedding
from mlx_lm.tuner.lora import LoRAEmbedding

from ..model_files.adapter_files import MLX_FILE, PEFT_FILE, SETTINGS_FILE
from ..models.adapters import describe, is_adapter, trained_whole
from ..models.families.head import language_model
from ..models.loaded import Loaded
from ..models.saved_adapters.peft_format import Moves, to_peft
from ..models.tensors import flat, save_tensors
from .tokenizer import save_beside_adapters
from .weight_names import in_checkpoint

AdapterFormat = Literal["mlx", "peft"]


def save_lora(
    loaded: Loaded,
    folder: Path | str,
    format: AdapterFormat = "mlx",
    *,
    base: str | None = None,
) -> Path:
    """Write the adapters' tensors and `adapter_config.json`, which names `base` or the model, into an empty folder.

    The chat templates in use stand beside them, and a tokenizer that is not the base's any more. The folder is made
    where it is missing. Raises ValueError, before anything is written, when the model has no adapters, and for those
    PEFT or transformers would not find the place of.
    """
    adapters = describe(loaded.module)
    if adapters is None:
        raise ValueError("This model has no adapters to save; call FastModel.get_peft_model before training.")
    whole = trained_whole(loaded.module)
    arrays = {
        name: array for name, array in flat(loaded.module.parameters()).items() if is_adapter(name) or name in whole
    }
    document = {"base_model_name_or_path": base or loaded.name, **adapters}
    if whole:
        document["modules_to_save"] = sorted({name.rpartition(".")[0] for name in whole})
    file = MLX_FILE
    if format == "peft":
        names = loaded.family.transformers_names
        _check_for_peft(loaded, adapters["lora_parameters"]["keys"], whole, names)
        embeddings = {path for path, layer in loaded.module.named_modules() if _is_embedding(layer)}
        document, arrays = to_peft(document, arrays, embeddings, names)
        file = PEFT_FILE
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / file, arrays)
    (folder / SETTINGS_FILE).write_text(json.dumps(document, indent=2) + "\n")
    save_beside_adapters(loaded, folder)
    return folder


def _check_for_peft(loaded: Loaded, adapted: list[str], whole: list[str], names: Moves) -> None:
    """Raise ValueError, with all reasons, where transformers and PEFT would not make the same model of the adapters.

    A layer's name in transformers is what the checkpoint calls it, unless the family has `names` of its own.
    """
    there, reasons = in_checkpoint(loaded.folder), []
    if names is None:
        reasons.append("what transformers calls the layers of this model is not known")
    elif not names and (elsewhere := [path for path in adapted if f"{path}.weight" not in there]):
        reasons.append(
            f"{len(elsewhere)} adapted layers, the first {elsewhere[0]}, are called otherwise in the checkpoint, so "
            "PEFT would not find them"
        )
    if any(name.endswith(".scales") for name in there):
        reasons.append("the checkpoint is quantized by MLX, and transformers does not open it")
    embeddings = {path for path, layer in loaded.module.named_modules() if _is_embedding(layer)}
    changed = embeddings & {*adapted, *(name.rpartition(".")[0] for name in whole)}
    if changed and "lm_head" not in language_model(loaded.module):
        reasons.append(f"{min(changed)} is also the output head, and PEFT would change the embedding alone")
    if reasons:
        raise ValueError(
            f"These adapters cannot be PEFT's: {'; '.join(reasons)}. Use format='mlx', or save_pretrained_merged."
        )


def _is_embedding(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Embedding | LoRAEmbedding | DoRAEmbedding)
