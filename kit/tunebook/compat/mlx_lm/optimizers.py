"""mlx-lm's optimizers by this kit's settings, where both compute the same."""

from collections.abc import Mapping
from typing import Any

from ..told import tell

UNCORRECTED = (
    "optimizer: Adam's means are corrected for their beginning here, as in the paper; mlx-lm leaves that out unless "
    "optimizer_config says bias_correction: true."
)
# What MLX's own (mlx.optimizers, 0.32) have where optimizer_config says nothing, of what this kit cannot set.
FIXED: Mapping[str, Mapping[str, Any]] = {
    "adam": {},
    "adamw": {},
    "sgd": {"momentum": 0.0, "weight_decay": 0.0, "dampening": 0.0, "nesterov": False},
    "muon": {"momentum": 0.95, "nesterov": True, "ns_steps": 5},
    "adafactor": {
        **{"eps": [1e-30, 1e-3], "clip_threshold": 1.0, "decay_rate": -0.8, "beta_1": None, "warmup_init": False},
        **{"scale_parameter": True, "relative_step": True, "weight_decay": 0.0},
    },
}
# And what this kit has in their place.
HERE = {"adafactor": {"scale_parameter": False, "relative_step": False}}


def optimizer_settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`optim` and what belongs to it. Raises ValueError for what this kit's optimizer would do otherwise."""
    if name not in FIXED:
        raise ValueError(f"optimizer is {name!r}; mlx-lm has {', '.join(FIXED)}.")
    config, wrong = dict(given), []
    for setting, usual in FIXED[name].items():
        value, ours = config.pop(setting, usual), HERE.get(name, {}).get(setting, usual)
        if (list(value) if isinstance(value, tuple) else value) != ours:
            wrong.append(f"{setting} is {value!r}, and is always {ours!r} here")
    found: dict[str, Any] = {"optim": name, "weight_decay": 0.0}
    if name in ("adam", "adamw"):
        found = {"optim": "adamw", "weight_decay": config.pop("weight_decay", 0.01) if name == "adamw" else 0.0}
        found |= dict(zip(("adam_beta1", "adam_beta2"), config.pop("betas", (0.9, 0.999)), strict=True))
        found["adam_epsilon"] = config.pop("eps", 1e-8)
        if not config.pop("bias_correction", False):
            tell(UNCORRECTED)
    if name == "muon":
        found["weight_decay"] = config.pop("weight_decay", 0.01)
    wrong += [f"{setting} is not here" for setting in config]
    if wrong:
        raise ValueError(
            f"optimizer_config of {name}: {'; '.join(wrong)}. Write what is here, or take optimizer: adamw."
        )
    return found
