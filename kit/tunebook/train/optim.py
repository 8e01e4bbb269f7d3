"""Learning rates, clipping and the optimizer: gradients in, updated parameters out.

Schedules are the formulas of transformers 5 (`optimization.py`), as plain functions of the step. The update rules are
those of mlx.optimizers, always fed float32: norms, decay, moments and the new values are computed in float32 whatever
the parameters are kept in. A step follows from parameters, gradients, `optimizer.state` and rate alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
from mlx.utils import tree_map, tree_unflatten

from ..config import Optim, TrainingConfig
from ..models.norms import is_norm
from ..models.tensors import flat, number

Gradients = dict  # a tree of arrays, shaped like the trainable parameters
Arrays = dict[str, mx.array]  # by dotted name
Role = Literal["embedding", "lora_b", "rest"]  # what decides the rate of a parameter

SUM_BLOCK = 1024  # elements added one after another
PIECE_BYTES = 64_000_000  # of what is computed at once only to see that it is finite
EMBEDDINGS = ("embed_tokens", "lm_head")  # modules whose own weights have the embedding_learning_rate


def learning_rate(config: TrainingConfig, total_steps: int) -> Callable[[int], float]:
    """`rate(step)`, 1-based: linear warm-up from 0, then the schedule down to `min_lr_rate * learning_rate`.

    As in transformers the first step of a warm-up has rate 0, and linear and cosine reach their end one step after
    the last. With a minimum, cosine is its `cosine_with_min_lr`; `constant` is its `constant_with_warmup`.
    """
    warmup, floor = config.warmup(total_steps), config.min_lr_rate
    shape = {
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
        "constant": lambda _: 1.0,
    }[config.lr_scheduler_type]

    def rate(step: int) -> float:
        done = step - 1
        if done < warmup:
            return config.learning_rate * done / warmup
        progress = (done - warmup) / max(1, total_steps - warmup)
        return config.learning_rate * (floor + (1.0 - floor) * max(0.0, shape(progress)))

    return rate


def said_of_the_warmup(config: TrainingConfig, total_steps: int) -> list[str]:
    """A sentence about a warm-up that does not end within the run, and leaves its rates lower than was asked for."""
    warmup, rate = config.warmup(total_steps), learning_rate(config, total_steps)
    highest = max(rate(step) for step in (total_steps, min(warmup + 1, total_steps)))
    if warmup < total_steps:
        return []
    setting = "warmup_steps" if config.warmup_ratio is None else "warmup_ratio"
    move = f"Set {setting}=0, or train for longer"
    if highest == 0:
        return [
            f"This run learns nothing: its warm-up of {warmup} begins at a learning rate of 0 and it has {total_steps} "
            f"step, so no weight is changed. {move}."
        ]
    return [
        f"The warm-up of {warmup} steps does not end within this run of {total_steps}: its highest learning rate is "
        f"{highest:.3g}, not {config.learning_rate:.3g}. {move}."
    ]


def clip(gradients: Gradients, config: TrainingConfig) -> tuple[Gradients, mx.array]:
    """(gradients within the limit of `config.clipping`, their global L2 norm before); types are kept.

    The norm is a float32 scalar. Nothing is evaluated.
    """
    norm = global_norm(gradients)
    match config.clipping:
        case ("max_grad_norm", limit):
            factor = _factor(norm, limit)
            return _in_float32(lambda gradient: gradient * factor, gradients), norm
        case ("max_grad_leaf_norm", limit):
            return _in_float32(lambda gradient: gradient * _factor(global_norm(gradient), limit), gradients), norm
        case ("max_grad_value", limit):
            return _in_float32(lambda gradient: mx.clip(gradient, -limit, limit), gradients), norm
        case _:
            return gradients, norm


def global_norm(gradients: Gradients | mx.array) -> mx.array:
    """The L2 norm over all gradients together, a float32 scalar."""
    squares = [_sum(mx.square(gradient.astype(mx.float32))) for gradient in flat(gradients).values()]
    return mx.sqrt(sum(squares, mx.array(0.0)))


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


@final
class Moment:
    """The trainable parameters of `module` and the state of `optimizer` as they are now, to go back to.

    Nothing is copied: an update makes new arrays. But as long as these are kept, it cannot reuse their memory.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer):
        self._module, self._optimizer = module, optimizer
        self._parameters = flat(module.trainable_parameters())
        self._state = tree_map(lambda array: array, optimizer.state)  # the dicts are changed in place, the arrays never

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in [*self._parameters.values(), *flat(self._state).values()])

    def put_back(self) -> None:
        """Have module and optimizer as they were."""
        self._module.load_weights(list(self._parameters.items()), strict=False)
        self._optimizer.state = self._state


def all_finite(module: nn.Module, optimizer: Optimizer) -> mx.array:
    """Whether no trainable parameter and nothing the optimizer remembers is NaN or infinite. Not yet evaluated."""
    return mx.stack([flag for flag, _ in _are_finite(module, optimizer)]).all()


def would_be_finite(
    module: nn.Module, gradients: Gradients, optimizer: Optimizer, *, rate: float, weight_decay: float
) -> bool:
    """Whether all would be finite after an `update`, which is computed for it and thrown away, a piece at a time."""
    before = Moment(module, optimizer)
    update(module, gradients, optimizer, rate=rate, weight_decay=weight_decay)
    flags = _are_finite(module, optimizer)[::-1]
    before.put_back()  # so that nothing but the flags holds what is computed
    del before
    while flags:
        piece, held = [], 0
        while flags and held < PIECE_BYTES:
            flag, nbytes = flags.pop()
            piece.append(flag)
            held += nbytes
        if not number(mx.stack(piece).all()):
            return False
    return True


def _are_finite(module: nn.Module, optimizer: Optimizer) -> list[tuple[mx.array, int]]:
    """(whether an array is finite, its bytes) of each, a parameter beside what the optimizer remembers of it."""
    state = {name.partition(".")[2]: array for name, array in flat(optimizer.state).items()}
    arrays = {**flat(module.trainable_parameters()), **state}
    return [
        (mx.isfinite(array).all(), array.nbytes)
        for _, array in sorted(arrays.items())
        if mx.issubdtype(array.dtype, mx.floating)
    ]


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


def _sum(values: mx.array) -> mx.array:
    """The sum of all elements, in blocks of blocks.

    MLX 0.32 adds on the CPU one after another in float32, and a hundred million squares come out a quarter short.
    """
    values = values.reshape(-1)
    while values.size > SUM_BLOCK:
        whole = values.size // SUM_BLOCK * SUM_BLOCK
        values = mx.concatenate([values[:whole].reshape(-1, SUM_BLOCK).sum(axis=1), values[whole:]])
    return values.sum()


def _factor(norm: mx.array, limit: float) -> mx.array:
    return mx.minimum(1.0, limit / (norm + 1e-6))  # 1e-6 as in torch.nn.utils.clip_grad_norm_


def _in_float32(function: Callable[[mx.array], mx.array], gradients: Gradients) -> Gradients:
    return tree_map(lambda gradient: function(gradient.astype(mx.float32)).astype(gradient.dtype), gradients)
