"""The settings PEFT (0.21) writes into adapter_config.json -> those understood, or a refusal that names the others.

This is a list of what is understood: a setting that is not on it, of PEFT or of a version to come, is refused unless it
is off. Regular expressions in settings are not run, as they come with the file.
"""

import math
from typing import Any

# What decides no number of the model a file of adapters makes: names, the way there, and how training begins or runs.
NO_EFFECT = {
    "task_type",
    "peft_type",  # looked at before
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "fan_in_fan_out",  # how the base stores its weights; A and B are the same
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",  # each of the last four only with the init_lora_weights of its name
    "megatron_core",  # only with megatron_config
    "qalora_group_size",  # only with use_qalora
    "runtime_config",
}
UNDERSTOOD = {
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "use_dora",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "ensure_weight_tying",
    "init_lora_weights",
    "bias",
    "rank_pattern",
    "alpha_pattern",
}
# Ways to begin that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA take away what A and B begin with.
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")


def check(config: dict[str, Any]) -> None:
    """Raise ValueError, all at once and with the next move, for settings that have no counterpart here."""
    if config.get("peft_type") != "LORA":
        raise ValueError(_refusal([f"peft_type is {config.get('peft_type')!r}"]))
    found = []
    for name, value in config.items():
        if name in NO_EFFECT or (name not in UNDERSTOOD and not value):
            continue
        if name not in UNDERSTOOD or not _is_plain(name, value, config):
            found.append(f"{name} is {shortly(value)}")
    if found:
        raise ValueError(_refusal(found, config.get("init_lora_weights")))
    _check_numbers(config)


def scale(config: dict[str, Any]) -> float:
    """What the product of B and A is multiplied with."""
    rank = config["r"]
    return config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)


def is_target(config: dict[str, Any], name: str) -> bool:
    """Whether PEFT puts an adapter on the projection `name`; False also where only a regular expression could tell."""
    targets, excluded, layers = (
        config.get(key) for key in ("target_modules", "exclude_modules", "layers_to_transform")
    )
    if targets == "all-linear":
        targets = [] if name.rsplit(".", 1)[-1] == "lm_head" else [name]
    if not isinstance(targets, list) or isinstance(excluded, str) or config.get("layers_pattern"):
        return False
    kept_whole = any(part in (config.get("modules_to_save") or ()) for part in name.split("."))
    if kept_whole or not _ends_in(name, targets) or _ends_in(name, excluded or ()):
        return False
    wanted = [layers] if isinstance(layers, int) else layers or ()
    numbers = [int(part) for part in name.split(".")[1:] if part.isdecimal()]
    return name in targets or not wanted or (bool(numbers) and numbers[0] in wanted)


def _ends_in(name: str, endings: Any) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def _is_plain(name: str, value: Any, config: dict[str, Any]) -> bool:
    """Whether a setting that is understood has a value that is."""
    if name == "init_lora_weights":
        return value is None or isinstance(value, bool) or value in PLAIN_STARTS
    if name == "bias":
        return value in ("none", None)
    if name in ("rank_pattern", "alpha_pattern"):
        same = config.get("r" if name == "rank_pattern" else "lora_alpha")
        return not value or (isinstance(value, dict) and all(one == same for one in value.values()))
    if name in ("use_rslora", "use_dora", "ensure_weight_tying"):
        return value is None or isinstance(value, bool)
    if name in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"):
        return value is None or isinstance(value, str) or _is_list_of(value, str)
    if name == "layers_to_transform":
        return value is None or _is_list_of(value if isinstance(value, list) else [value], int)
    return True  # numbers, which have a message of their own


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _check_numbers(config: dict[str, Any]) -> None:
    rank, alpha, dropout = (config.get(name, default) for name, default in _NUMBERS.items())
    wrong = []
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        wrong.append(f"r is {shortly(rank)}, which must be a whole number of at least 1")
    if not is_number(alpha):
        wrong.append(f"lora_alpha is {shortly(alpha)}, which must be a finite number")
    if not is_number(dropout) or not 0 <= dropout < 1:
        wrong.append(f"lora_dropout is {shortly(dropout)}, which must be a number from 0 to below 1")
    if wrong:
        raise ValueError(f"These settings of PEFT's are none: {'; '.join(wrong)}. Save the adapters again.")


_NUMBERS = {"r": None, "lora_alpha": None, "lora_dropout": 0.0}


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, of a size that a float has room for."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e38  # NaN compares as False


def shortly(value: Any) -> str:
    """A value as a message has room for it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refusal(found: list[str], start: Any = None) -> str:
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    move = "Merge them with PEFT first (merge_and_unload, then save_pretrained) and load the merged folder."
    if any(text.startswith("alora_invocation_tokens") for text in found):
        move = "They act behind these tokens alone, which no merged model can; use them with PEFT."
    if isinstance(start, str) and start not in PLAIN_STARTS:
        move = (
            "That way to begin takes part of the base's weights into the adapters: save them with PEFT's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...), or merge them with PEFT "
            "(merge_and_unload) and load the merged folder."
        )
    return f"These PEFT adapters cannot be put on an MLX model: {'; '.join(found[:8])}{more}. {move}"
