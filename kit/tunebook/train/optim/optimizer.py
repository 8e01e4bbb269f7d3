"""The optimizer: gradients in, updated parameters out.

The update rules are those of mlx.optimizers, always fed float32: decay, moments and the new values are computed in
float32 whatever the parameters are kept in. A step follows from parameters, gradients, `optimizer.state` and rate
alone.
"""

from dataclasses import dataclass
from typing import Any, Literal, final

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
from mlx.utils import tree_unflatten

from ...config import Optim, TrainingConfig
from ...models.norms import is_norm
from ...models.tensors import flat
from .clipping import Gradients

Arrays = dict[str, mx.array]  # by dotted name
Role = Literal["embedding", "lora_b", "rest"]  # what decides the rate of a parameter

EMBEDDINGS = ("embed_tokens", "lm_head")  # modules whose own weights have the embedding_learning_rate


@dataclass
class Group:
    """Parameters that share an update rule and a rate."""

    rule: Optim
    optimizer: mlx.optimizers.Optimizer
    names: list[str]
    factor: float  # their rate, as a multiple of the schedule's


@final
class Optimizer:
    """The groups of a model's trainable parameters, and what rounding took from those kept in half precision.

    A bfloat16 weight near 0.02 cannot take a step of 2e-5: the sum rounds back to where it was. So the part that is
    rounded off is kept, as bfloat16, and added again at the next step; weight and remainder together are precise to
    about 2**-17. Parameters in float32, adapters among them, need none.
    """

    def __init__(self, groups: dict[str, Group], parameters: Arrays):
        self.groups = groups
        self.remainders: Arrays = {
            name: mx.zeros(value.shape, mx.bfloat16) for name, value in parameters.items() if value.dtype != mx.float32
        }
        for group in groups.values():
            exact = {name: parameters[name].astype(mx.float32) for name in group.names}
            group.optimizer.init(tree_unflatten(_shown(group, exact)))

    @property
    def state(self) -> dict[str, Any]:
        """Everything it remembers, as a tree of arrays: moments, step counts, remainders."""
        states = {name: group.optimizer.state for name, group in self.groups.items()}
        return {**states, "remainders": tree_unflatten(self.remainders)} if self.remainders else states

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        """Take up where `state` was left. Raises ValueError when it is another optimizer's or another model's."""
        ours, theirs = flat(self.state), flat(state)
        different = sorted(
            name
            for name in ours.keys() | theirs.keys()
            if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
        )
        if different:
            raise ValueError(
                f"This optimizer state does not fit: {len(different)} of its {len(theirs)} arrays are missing here, "
                f"missing there or of another shape, the first {different[0]!r}. Set optim and what is trained as "
                "they were when it was saved."
            )
        for name, group in self.groups.items():
            group.optimizer.state = state[name]
        if self.remainders:
            self.remainders = flat(state["remainders"])


def make_optimizer(config: TrainingConfig, module: nn.Module) -> Optimizer:
    """The optimizer `config.optim` names, its state made for the trainable parameters of `module`.

    Weight decay is left to `update`, which knows what must not be decayed. Raises ValueError when a rate is set for
    parameters of which there are none.
    """
    parameters = flat(module.trainable_parameters())
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
    return Optimizer(groups, parameters)


def update(module: nn.Module, gradients: Gradients, optimizer: Optimizer, *, rate: float, weight_decay: float) -> None:
    """One optimizer step on `module`, in place: decoupled decay, then the optimizer's own update. Not yet evaluated.

    `rate` is the schedule's; each group decays and steps at its own multiple of it.
    """
    parameters, grads = flat(module.trainable_parameters()), flat(gradients)
    new: Arrays = {}
    for group in optimizer.groups.values():
        group.optimizer.learning_rate = rate * group.factor
        keep = 1.0 - rate * group.factor * weight_decay
        exact = {name: parameters[name].astype(mx.float32) for name in group.names}
        for name in group.names:
            if name in optimizer.remainders:
                exact[name] = exact[name] + optimizer.remainders[name].astype(mx.float32)
            if weight_decay and decays(name):
                exact[name] = exact[name] * keep
        steps = _shown(group, {name: grads[name].astype(mx.float32) for name in group.names})
        stepped = group.optimizer.apply_gradients(tree_unflatten(steps), tree_unflatten(_shown(group, exact)))
        new |= _shown(group, flat(stepped))
    for name, value in new.items():
        new[name] = value.astype(parameters[name].dtype)
        if name in optimizer.remainders:
            optimizer.remainders[name] = (value - new[name].astype(mx.float32)).astype(mx.bfloat16)
    module.update(tree_unflatten(new))


def decays(path: str) -> bool:
    """Whether the parameter at `path` is decayed: everything but biases and norms (`*norm*`, `ln_*`)."""
    return path.split(".")[-1] != "bias" and not is_norm(path)


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


def _shown(group: Group, arrays: Arrays) -> Arrays:
    """`arrays` as the group's optimizer sees them, and back again.

    Muon's rate grows with the outputs over the inputs of a matrix, whose rows are taken to be the outputs. mlx-lm
    keeps A as (inputs, R) and B as (R, outputs), so Muon is shown their transposes.
    """
    if group.rule != "muon":
        return arrays
    return {name: value.T if name.endswith((".lora_a", ".lora_b")) else value for name, value in arrays.items()}
