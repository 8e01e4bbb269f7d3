"""Adapters as PEFT (0.17 to 0.21) names and shapes them, and as mlx-lm does; each turned into the other.

PEFT keeps A as (R, inputs) and B as (outputs, R), mlx-lm the transposes, and PEFT divides its `lora_alpha` by the rank
where mlx-lm has one `scale`. Nothing is read or written here.
"""

from collections.abc import Collection
from typing import Any

import mlx.core as mx

from .peft_settings import check, scale

Tensors = dict[str, mx.array]
Moves = Collection[tuple[str, str]] | None  # (beginning of a name, what stands in its place); None: not known

PREFIX = "base_model.model."
NAMES = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}
EMBEDDING_NAMES = {"lora_a": "lora_embedding_A", "lora_b": "lora_embedding_B"}
COPIES = ("base_layer", "original_module")  # what PEFT calls the base's own layer beside or under a trained one


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
    """The other way round, `moves` too; copies of the base's own embeddings, which PEFT adds, keep its ending for them.

    Raises ValueError, all at once, for settings that have no counterpart here, and for two tensors of one place.
    """
    check(config)
    leaves = {**_flipped(NAMES), **_flipped(EMBEDDING_NAMES), "lora_magnitude_vector.weight": "m"}
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        path = moved(name.removeprefix(PREFIX).replace(".modules_to_save.", "."), moves)
        suffix = next((suffix for suffix in leaves if path.endswith(f".{suffix}")), None)
        if suffix is not None:
            leaf = leaves[suffix]
            path, tensor = f"{path.removesuffix(suffix)}{leaf}", tensor.reshape(-1) if leaf == "m" else tensor.T
        if path in renamed and not (
            renamed[path].shape == tensor.shape and mx.array_equal(renamed[path], tensor).item()
        ):
            raise ValueError(f"{name} is in the file of adapters twice, with other numbers; save the adapters again.")
        renamed[path] = tensor
    settings = {
        "base_model_name_or_path": config.get("base_model_name_or_path"),
        "fine_tune_type": "dora" if config.get("use_dora") else "lora",
        "num_layers": -1,
        "lora_parameters": {
            "rank": config["r"],
            "scale": scale(config),
            "dropout": config.get("lora_dropout", 0.0),
            "keys": sorted(name.removesuffix(".lora_a") for name in renamed if name.endswith(".lora_a")),
        },
    }
    whole = {
        name.rpartition(".")[0]
        for name in renamed
        if name.rpartition(".")[2] not in NAMES and base_of_copy(name) is None
    }
    return {**settings, "modules_to_save": sorted(whole)} if whole else settings, renamed


def base_of_copy(name: str) -> str | None:
    """The parameter of the base that a tensor of PEFT's is a copy of; None for what was trained."""
    for ending in COPIES:
        if name.endswith(f".{ending}.weight"):
            return f"{name.removesuffix(f'.{ending}.weight')}.weight"
    return None


def _flipped(names: dict[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}
