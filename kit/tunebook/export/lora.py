"""Adapters alone, as mlx-lm saves them: stock `mlx_lm.load(base, adapter_path=folder)` opens the folder.

Modules trained whole go into the same file. mlx-lm (0.32) refuses such a file rather than lose them; it is read by
`adapters.load_adapters`, and for other programs there are the merged weights.
"""

import json
from pathlib import Path

from ..adapters import describe, is_adapter, trained_whole
from ..atomic import new_folder
from ..loader import Loaded
from ..tensors import flat, save_tensors


def save_lora(loaded: Loaded, folder: Path | str) -> Path:
    """Write `adapters.safetensors` and `adapter_config.json`; raises ValueError when the model has no adapters."""
    folder = Path(folder)
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
    with new_folder(folder) as partial:
        save_tensors(partial / "adapters.safetensors", arrays)
        (partial / "adapter_config.json").write_text(json.dumps(document, indent=2) + "\n")
    return folder
