"""The optimizers and schedules of torch and transformers, and two that only papers have, for the same parameters.

Parameters come by our names, those of adapters laid out as PEFT has them, the transposes of ours. Each has an optimizer
of its own, so that what it decays and at which rate it steps is settled here and compared with nothing of the kit's.
"""

import math
from typing import Any, final

import numpy as np
import torch

from ...config import TrainingConfig
from ...train.optim import DECAY_SHARE

Arrays = dict[str, np.ndarray]


def rates(config: TrainingConfig, steps: int) -> list[float]:
    """The rate transformers gives each of `steps`."""
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    name: Any = config.lr_scheduler_type
    specific = dict(config.lr_scheduler_kwargs or {})
    if name == "constant":
        name = "constant_with_warmup"
    elif name == "cosine" and config.min_lr_rate:
        name, specific = "cosine_with_min_lr", {"min_lr_rate": config.min_lr_rate}
    elif name == "polynomial":
        specific["lr_end"] = config.min_lr_rate * config.learning_rate
    elif name == "warmup_stable_decay":
        specific = {"num_decay_steps": math.ceil(DECAY_SHARE * steps), "min_lr_ratio": config.min_lr_rate} | specific
    scheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=config.warmup(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=specific or None,
    )
    found = []
    for _ in range(steps):
        found += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    return found


def clip(parameters: list[torch.nn.Parameter], config: TrainingConfig) -> None:
    """Bring the gradients of `parameters` within `config.clipping`, in place."""
    match config.clipping:
        case ("max_grad_norm", limit):
            torch.nn.utils.clip_grad_norm_(parameters, limit)
        case ("max_grad_leaf_norm", limit):
            for parameter in parameters:
                torch.nn.utils.clip_grad_norm_([parameter], limit)
        case ("max_grad_value", limit):
            torch.nn.utils.clip_grad_value_(parameters, limit)
        case _:
            pass


@final
class Reference:
    """One optimizer for each of `parameters`, torch's own wherever torch has it exactly."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], config: TrainingConfig):
        self.parameters = parameters
        self._optimizers = {name: _optimizer(name, parameter, config) for name, parameter in parameters.items()}
        self._factors = {name: _rate(name, config) / config.learning_rate for name in parameters}

    def step(self, rate: float) -> None:
        """Step every parameter by its gradient; `rate` is the schedule's."""
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * self._factors[name]
            optimizer.step()


def parameters_of(arrays: Arrays) -> dict[str, torch.nn.Parameter]:
    """`arrays`, named and laid out as ours, as PEFT would hold them."""
    return {name: torch.nn.Parameter(torch.tensor(_turned(name, array))) for name, array in arrays.items()}


def arrays_of(parameters: dict[str, torch.nn.Parameter]) -> Arrays:
    """And back again."""
    return {name: _turned(name, parameter.detach().numpy()) for name, parameter in parameters.items()}


def set_gradients(parameters: dict[str, torch.nn.Parameter], gradients: Arrays) -> None:
    """Give each of `parameters` its gradient, laid out as ours."""
    for name, parameter in parameters.items():
        parameter.grad = torch.tensor(_turned(name, gradients[name]))


def _turned(name: str, array: np.ndarray) -> np.ndarray:
    return array.T.copy() if name.endswith((".lora_a", ".lora_b")) else array.copy()


def _rate(name: str, config: TrainingConfig) -> float:
    if name.endswith(".lora_b"):
        return config.learning_rate * (config.lora_plus_ratio or 1.0)
    if _is_embedding(name):
        return config.embedding_learning_rate or config.learning_rate
    return config.learning_rate


def _is_embedding(name: str) -> bool:
    *_, parent, leaf = ["", *name.split(".")]
    return parent in ("embed_tokens", "lm_head") and leaf in ("weight", "bias")


def _optimizer(name: str, parameter: torch.nn.Parameter, config: TrainingConfig) -> Any:
    rate, rule = _rate(name, config), config.optim
    undecayed = name.endswith("bias") or "norm" in name or name.startswith("ln_f")
    decay = 0.0 if undecayed else config.weight_decay
    if rule == "muon" and (parameter.ndim != 2 or _is_embedding(name)):
        rule = "adamw"
    if rule == "adamw":
        betas = (config.adam_beta1, config.adam_beta2)
        return torch.optim.AdamW([parameter], lr=rate, betas=betas, eps=config.adam_epsilon, weight_decay=decay)
    if rule == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor([parameter], lr=rate, relative_step=False, scale_parameter=False, weight_decay=decay)
    if rule == "sgd":
        return torch.optim.SGD([parameter], lr=rate, weight_decay=decay)
    return {"lion": Lion, "muon": Muon}[rule](parameter, rate, decay)


@final
class Lion:
    """Algorithm 2 of arXiv 2302.06675, in float64."""

    def __init__(self, parameter: torch.nn.Parameter, rate: float, decay: float):
        self.parameter, self.decay, self.momentum = parameter, decay, np.zeros(())
        self.param_groups = [{"lr": rate}]

    def step(self) -> None:
        rate = self.param_groups[0]["lr"]
        gradient, weight = _in_float64(self.parameter)
        update = np.sign(0.9 * self.momentum + 0.1 * gradient)
        self.momentum = 0.99 * self.momentum + 0.01 * gradient
        self.parameter.data = torch.tensor(weight - rate * (update + self.decay * weight), dtype=torch.float32)


@final
class Muon:
    """The algorithm of kellerjordan.github.io/posts/muon, in float64 (torch.optim.Muon iterates in bfloat16)."""

    def __init__(self, parameter: torch.nn.Parameter, rate: float, decay: float):
        self.parameter, self.decay, self.momentum = parameter, decay, np.zeros(())
        self.param_groups = [{"lr": rate}]

    def step(self) -> None:
        rate = self.param_groups[0]["lr"]
        gradient, weight = _in_float64(self.parameter)
        self.momentum = 0.95 * self.momentum + 0.05 * gradient
        x = 0.05 * gradient + 0.95 * self.momentum  # Nesterov
        x = x / np.linalg.norm(x)
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        rows, columns = weight.shape
        step = max(1.0, rows / columns) ** 0.5 * x
        self.parameter.data = torch.tensor(weight - rate * (step + self.decay * weight), dtype=torch.float32)


def _in_float64(parameter: torch.nn.Parameter) -> tuple[np.ndarray, np.ndarray]:
    """(gradient, weight)."""
    assert parameter.grad is not None
    return parameter.grad.numpy().astype(float), parameter.detach().numpy().astype(float)
