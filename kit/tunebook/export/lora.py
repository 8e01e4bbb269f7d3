"""Adapters alone, as mlx-lm saves them: stock `mlx_lm.load(base, adapter_path=folder)` opens the folder."""

import json
from pathlib import Path

from ..adapters import describe
from ..atomic import new_folder
from ..loader import Loaded
from ..tensors import flat, save_tensors


def save_lora(loaded: Loaded, folder: Path | str) -> Path:
    """Write `adapters.safetensors` and `adapter_config.json`; raises ValueError when the model has no adapters."""
    folder = Path(folder)
    adapters = describe(loaded.module)
    if adapters is None:
        raise ValueError("This model has no adapters to save; call FastModel.get_peft_model before training.")
    arrays = {
        name: array
        for name, array in flat(loaded.module.parameters()).items()
        if name.rsplit(".", 1)[-1] in ("lora_a", "lora_b", "m")
    }
    with new_folder(folder) as partial:
        save_tensors(partial / "adapters.safetensors", arrays)
        document = {"base_model_name_or_path": loaded.name, **adapters}
        (partial / "adapter_config.json").write_text(json.dumps(document, indent=2) + "\n")
    return folder
