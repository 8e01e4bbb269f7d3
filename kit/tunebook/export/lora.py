"""Adapters alone, as mlx-lm saves them: stock `mlx_lm.load(base, adapter_path=folder)` opens the folder."""

import json
from pathlib import Path

from mlx_lm.tuner.dora import DoRALinear

from ..adapters import adapter_paths
from ..atomic import new_folder
from ..loader import Loaded
from ..tensors import flat, save_tensors


def save_lora(loaded: Loaded, folder: Path | str) -> Path:
    """Write `adapters.safetensors` and `adapter_config.json`; raises ValueError when the model has no adapters."""
    folder = Path(folder)
    paths = adapter_paths(loaded.module)
    if not paths:
        raise ValueError("This model has no adapters to save; call FastModel.get_peft_model before training.")
    layers = dict(loaded.module.named_modules())
    first = layers[paths[0]]
    rank = first["lora_a"].shape[-1] if first["lora_a"].ndim == 2 else first["lora_a"].shape[-2]
    config = {
        "base_model_name_or_path": loaded.name,
        "fine_tune_type": "dora" if isinstance(first, DoRALinear) else "lora",
        "num_layers": -1,  # every layer is looked at; the keys, being full paths, say which are adapted
        "lora_parameters": {"rank": rank, "scale": first.scale, "dropout": _dropout(first), "keys": paths},
    }
    arrays = {
        name: array
        for name, array in flat(loaded.module.parameters()).items()
        if name.rsplit(".", 1)[-1] in ("lora_a", "lora_b", "m")
    }
    with new_folder(folder) as partial:
        save_tensors(partial / "adapters.safetensors", arrays)
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def _dropout(layer) -> float:
    """The dropout of an adapter layer. nn.Dropout keeps only the share it lets through."""
    return 1.0 - layer.dropout._p_1
