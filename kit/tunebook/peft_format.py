"""Adapters as PEFT (0.17 and later) names and shapes them, and as mlx-lm does; each turned into the other.

PEFT keeps A as (R, inputs) and B as (outputs, R), mlx-lm the transposes, and PEFT divides its `lora_alpha` by the rank
where mlx-lm has one `scale`. Nothing is read or written here.
"""

import math
from collections.abc import Collection
from typing import Any

import mlx.core as mx

Tensors = dict[str, mx.array]
Moves = Collection[tuple[str, str]] | None  # (beginning of a name, what stands in its place); None: not known

PREFIX = "base_model.model."
NAMES = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}
EMBEDDING_NAMES = {"lora_a": "lora_embedding_A", "lora_b": "lora_embedding_B"}

# What PEFT can do that has no counterpart here: a setting, and the values that leave it unused.
_UNUSED = {
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "lora_bias": (False,),
}


def moved(name: str, moves: Moves) -> str:
    """`name` with the first beginning of `moves` it has replaced."""
    for here, there in moves or ():
        if name.startswith(here):
            return there + name.removeprefix(here)
    return name


def to_peft(
    settings: dict[str, Any], tensors: Tensors, embeddings: Collection[str], moves: Moves = ()
) -> tuple[dict[str, Any], Tensors]:
    """(adapter_config.json, tensors) for PEFT, of mlx-lm's settings and tensors; `embeddings` are adapted ones' paths.

    `moves` lead from names here to those transformers has. Raises ValueError for adapters PEFT has no place for.
    """
    lora, renamed = settings["lora_parameters"], {}
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        names = EMBEDDING_NAMES if path in embeddings else NAMES
        if leaf in NAMES and (leaf not in names or tensor.ndim > 2):
            raise ValueError(
                f"PEFT has no place for {name} {list(tensor.shape)}: it takes neither DoRA on an embedding nor "
                "adapters on the experts of a mixture. Use format='mlx', or save_pretrained_merged."
            )
        if leaf in names:
            renamed[f"{PREFIX}{moved(path, moves)}.{names[leaf]}"] = tensor.T if leaf != "m" else tensor
        else:
            renamed[f"{PREFIX}{moved(name, moves)}"] = tensor
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": settings["base_model_name_or_path"],
        "r": lora["rank"],
        "lora_alpha": lora["scale"] * lora["rank"],
        "lora_dropout": lora["dropout"],
        "target_modules": [moved(path, moves) for path in lora["keys"]],
        "modules_to_save": [moved(path, moves) for path in settings.get("modules_to_save", ())] or None,
        "use_dora": settings["fine_tune_type"] == "dora",
        "use_rslora": False,  # its factor is in lora_alpha
        "bias": "none",
        "inference_mode": True,
    }
    return config, renamed


def from_peft(config: dict[str, Any], tensors: Tensors, moves: Moves = ()) -> tuple[dict[str, Any], Tensors]:
    """The other way round, `moves` too. Raises ValueError, all at once, for what has no counterpart here."""
    used = {name: config[name] for name, unused in _UNUSED.items() if name in config and config[name] not in unused}
    found = [f"{name} is {value!r}" for name, value in used.items()]
    if config.get("peft_type") != "LORA":
        found.insert(0, f"peft_type is {config.get('peft_type')!r}")
    if found:
        raise ValueError(f"These PEFT adapters cannot be put on an MLX model: {'; '.join(found)}.")
    rank, leaves = config["r"], {**_flipped(NAMES), **_flipped(EMBEDDING_NAMES), "lora_magnitude_vector.weight": "m"}
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        path = moved(name.removeprefix(PREFIX).replace("modules_to_save.", ""), moves)
        suffix = next((suffix for suffix in leaves if path.endswith(f".{suffix}")), None)
        if suffix is None:
            renamed[path] = tensor
        else:
            leaf = leaves[suffix]
            renamed[f"{path.removesuffix(suffix)}{leaf}"] = tensor.reshape(-1) if leaf == "m" else tensor.T
    settings = {
        "base_model_name_or_path": config["base_model_name_or_path"],
        "fine_tune_type": "dora" if config.get("use_dora") else "lora",
        "num_layers": -1,
        "lora_parameters": {
            "rank": rank,
            "scale": config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank),
            "dropout": config.get("lora_dropout", 0.0),
            "keys": sorted(name.removesuffix(".lora_a") for name in renamed if name.endswith(".lora_a")),
        },
    }
    whole = {name.rpartition(".")[0] for name in renamed if name.rpartition(".")[2] not in NAMES}
    return {**settings, "modules_to_save": sorted(whole)} if whole else settings, renamed


def _flipped(names: dict[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}
