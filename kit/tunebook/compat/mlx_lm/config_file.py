"""The file: YAML as mlx-lm reads it, with its defaults; a key that mlx-lm has not is refused."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # mlx-lm brings it

# Those of mlx_lm/lora.py, 0.32; a test holds them against what is installed.
DEFAULTS: Mapping[str, Any] = {
    "model": "Qwen/Qwen3-0.6b",
    "train": False,
    "fine_tune_type": "lora",
    "optimizer": "adam",
    "optimizer_config": {"adam": {}, "adamw": {}, "muon": {}, "sgd": {}, "adafactor": {}},
    "data": "mlx-community/WikiSQL",
    "seed": 0,
    "num_layers": 16,
    "batch_size": 4,
    "iters": 1000,
    "val_batches": 25,
    "learning_rate": 1e-5,
    "steps_per_report": 10,
    "steps_per_eval": 200,
    "resume_adapter_file": None,
    "adapter_path": "adapters",
    "save_every": 100,
    "test": False,
    "test_batches": 500,
    "max_seq_length": 2048,
    "config": None,
    "grad_checkpoint": False,
    "grad_accumulation_steps": 1,
    "clear_cache_threshold": 0,
    "lr_schedule": None,
    "lora_parameters": {"rank": 8, "dropout": 0.0, "scale": 20.0},
    "mask_prompt": False,
    "report_to": None,
    "project_name": None,
    "trust_remote_code": False,
}
# Names of columns, which mlx-lm reads from a config and has no default of there.
COLUMNS: Mapping[str, str] = {
    "prompt_feature": "prompt",
    "completion_feature": "completion",
    "chat_feature": "messages",
    "text_feature": "text",
}
_FLOAT = re.compile(
    r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"
)  # 1e-5, which YAML 1.1 takes for a text and mlx-lm does not

Settings = dict[str, Any]


def read_config(path: str | os.PathLike[str]) -> Settings:
    """All settings of a config, those it does not name at mlx-lm's defaults. Raises ValueError for unknown ones."""
    document = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no settings; write them as `iters: 600`, one a line.")
    given = _numbers({name: value for name, value in document.items() if value is not None})
    known = [*DEFAULTS, *COLUMNS, "hf_dataset"]
    if unknown := [name for name in given if name not in known]:
        raise ValueError("\n".join(f"{path} has {_guess(name, known)}" for name in unknown))
    if "hf_dataset" in given:
        raise ValueError(
            f"{path} has hf_dataset, whose splits are not cut here. Write data: owner/name for a set with train and "
            "valid, or pass rows to tunebook.Trainer: train_dataset='owner/name:train[:80%]'."
        )
    return {**DEFAULTS, **COLUMNS, **given}


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return float(value) if isinstance(value, str) and _FLOAT.fullmatch(value) else value


def _guess(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name}, which mlx_lm.lora does not know{f'; did you mean {near[0]}?' if near else '. Take it out.'}"
