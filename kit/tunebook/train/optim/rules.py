"""Which parameters share an update rule and a rate, and the rules: those of mlx.optimizers."""

from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import mlx.optimizers

from ...config import Optim, TrainingConfig
from ...models.norms import is_norm
from .buffers import Arrays

Role = Literal["embedding", "lora_b", "rest"]  # what decides the rate of a parameter

EMBEDDINGS = ("embed_tokens", "lm_head")  # modules whose own weights have the embedding_learning_rate


@dataclass
class Group:
    """Parameters that share an update rule and a rate."""

    rule: Optim
    optimizer: mlx.optimizers.Optimizer  # its formula; what it remembers is kept in `Optimizer`
    names: list[str]
    factor: float  # their rate, as a multiple of the schedule's

    @property
    def of_matrices(self) -> bool:
        """Whether the rule looks at a whole parameter, not at each of its elements alone."""
        return self.rule in ("adafactor", "muon")


def groups_of(config: TrainingConfig, parameters: Arrays) -> dict[str, Group]:
    """The groups of `parameters`, by the name they have in checkpoints.

    Raises ValueError when a rate is set for parameters of which there are none.
    """
    factors: dict[Role, float] = {
        "embedding": (config.embedding_learning_rate or config.learning_rate) / config.learning_rate,
        "lora_b": config.lora_plus_ratio or 1.0,
        "rest": 1.0,
    }
    groups: dict[str, Group] = {}
    for name, value in parameters.items():
        role, rule = _role(name), _rule(name, value, config.optim)
        group = groups.setdefault(f"{rule}_{role}", Group(rule, _new(rule, config), [], factors[role]))
        group.names.append(name)
    _check_rates(config, {_role(name) for name in parameters})
    return groups


def decays(path: str) -> bool:
    """Whether the parameter at `path` is decayed: everything but biases and norms (`*norm*`, `ln_*`)."""
    return path.split(".")[-1] != "bias" and not is_norm(path)


def shown(rule: Optim, arrays: Arrays) -> Arrays:
    """`arrays` as `rule` sees them, and back again.

    Muon's rate grows with the outputs over the inputs of a matrix, whose rows are taken to be the outputs. mlx-lm
    keeps A as (inputs, R) and B as (R, outputs), so Muon is shown their transposes.
    """
    if rule != "muon":
        return arrays
    return {name: value.T if name.endswith((".lora_a", ".lora_b")) else value for name, value in arrays.items()}


def _new(rule: Optim, config: TrainingConfig) -> mlx.optimizers.Optimizer:
    """mlx's optimizer for `rule`, with no decay of its own. Its learning rate is set before every step."""
    rate = config.learning_rate
    match rule:
        case "adamw":  # Loshchilov & Hutter 2019, arXiv 1711.05101; the decay is ours, the rest is Adam
            betas = [config.adam_beta1, config.adam_beta2]
            return mlx.optimizers.Adam(rate, betas=betas, eps=config.adam_epsilon, bias_correction=True)
        case "adafactor":  # Shazeer & Stern 2018, arXiv 1804.04235; at the rate given, as transformers' Trainer sets it
            return mlx.optimizers.Adafactor(rate, scale_parameter=False, relative_step=False)
        case "lion":  # Chen et al. 2023, arXiv 2302.06675, with the paper's betas
            return mlx.optimizers.Lion(rate, betas=[0.9, 0.99])
        case "sgd":  # no momentum, as in transformers
            return mlx.optimizers.SGD(rate)
        case "muon":  # Jordan et al. 2024, kellerjordan.github.io/posts/muon
            return mlx.optimizers.Muon(rate, momentum=0.95, weight_decay=0.0)


def _rule(name: str, value: mx.array, optim: Optim) -> Optim:
    """`optim`; but Muon is for matrices of hidden layers, and by its author's advice AdamW takes all else."""
    return "adamw" if optim == "muon" and (value.ndim != 2 or _role(name) == "embedding") else optim


def _role(name: str) -> Role:
    *_, parent, leaf = ["", *name.split(".")]
    if parent in EMBEDDINGS and leaf in ("weight", "bias"):
        return "embedding"
    return "lora_b" if leaf == "lora_b" else "rest"


def _check_rates(config: TrainingConfig, roles: set[Role]) -> None:
    complaints = []
    if config.embedding_learning_rate is not None and "embedding" not in roles:
        complaints.append(
            f"embedding_learning_rate is {config.embedding_learning_rate}, but no weights of {' or '.join(EMBEDDINGS)} "
            "are trained; name one in modules_to_save, or leave the rate out."
        )
    if config.lora_plus_ratio is not None and "lora_b" not in roles:
        complaints.append(
            f"lora_plus_ratio is {config.lora_plus_ratio}, but no LoRA adapters are trained; add them with "
            "get_peft_model, or leave the ratio out."
        )
    if complaints:
        raise ValueError("\n".join(f"TrainingConfig.{text}" for text in complaints))
