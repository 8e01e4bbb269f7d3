"""Made-up parameters and gradients through the procedure's rates, clipping and optimizer, and through torch's."""

from dataclasses import replace
from typing import get_args

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from ...config import Clipping, Optim, TrainingConfig
from ...models.tensors import flat
from ...tokens.batch_order import total_steps
from ..case import Case
from ..finding import Finding
from ..procedure import Procedure
from ..references import torch_optim

STEP, RATE = 1e-6, 1e-9  # of a parameter near 1, after one step at a rate of 0.01; relative
LIMIT = 0.5  # of each way of clipping
SHAPES = {
    "layers.0.q_proj.lora_a": (6, 2),
    "layers.0.q_proj.lora_b": (2, 8),
    "layers.0.q_proj.bias": (8,),
    "layers.0.input_layernorm.weight": (6,),
    "layers.0.up_proj.weight": (8, 6),
    "embed_tokens.weight": (10, 6),
}


def rates(case: Case) -> list[Finding]:
    """The learning rate of every step, against transformers' schedule of the same name."""
    steps = total_steps(len(case.encoded), case.training)
    rate = case.procedure.rate(case.training, steps)
    expected = torch_optim.rates(case.training, steps)
    off = [abs(rate(step) - there) / case.training.learning_rate for step, there in enumerate(expected, start=1)]
    step = int(np.argmax(off))
    return [
        Finding(
            stage="rates",
            what="learning rate of every step, here and in transformers",
            measured=off[step],
            tolerance=RATE,
            unit="relative",
            evidence=f"Step {step + 1} has the rate {rate(step + 1):.3e}, and {expected[step]:.3e} there.",
        )
    ]


def optimizer_step(case: Case) -> list[Finding]:
    """One step of each optimizer under each way of clipping; the largest difference of a parameter."""
    modes: list[Clipping | None] = [None, *get_args(Clipping)]
    worst, at = -1.0, ""
    for optim in get_args(Optim):
        for mode in modes:
            config = _config(case.training, optim, mode)
            ours, theirs = _here(case.procedure, config), _there(config)
            for name, array in theirs.items():
                off = float(np.abs(ours[name] - array).max())
                if not off <= worst:
                    worst, at = off, f"Largest for {name}, with {optim} and {mode or 'no clipping'}."
    return [
        Finding(
            stage="optimizer",
            what=f"one step of {', '.join(get_args(Optim))}, here and in torch",
            measured=worst,
            tolerance=STEP,
            unit="",
            evidence=at,
        )
    ]


def _config(training: TrainingConfig, optim: Optim, mode: Clipping | None) -> TrainingConfig:
    limits = {name: LIMIT if name == mode else None for name in get_args(Clipping)}
    return replace(
        training,
        optim=optim,
        learning_rate=0.01,
        weight_decay=0.1,
        embedding_learning_rate=None,
        lora_plus_ratio=None,
        **limits,
    )


def _here(procedure: Procedure, config: TrainingConfig) -> torch_optim.Arrays:
    module = nn.Module()
    for name, value in tree_unflatten([(name, mx.array(array)) for name, array in _random(0).items()]).items():
        module[name] = value
    optimizer = procedure.make_optimizer(config, module)
    gradients = tree_unflatten([(name, mx.array(array)) for name, array in _random(1).items()])
    gradients, _ = procedure.clip(gradients, config)
    gathered = optimizer.gathered(gradients)
    procedure.update(module, gathered, optimizer, rate=config.learning_rate, weight_decay=config.weight_decay)
    return {name: np.array(array) for name, array in flat(module.parameters()).items()}


def _there(config: TrainingConfig) -> torch_optim.Arrays:
    parameters = torch_optim.parameters_of(_random(0))
    torch_optim.set_gradients(parameters, _random(1))
    torch_optim.clip(list(parameters.values()), config)
    torch_optim.Reference(parameters, config).step(config.learning_rate)
    return torch_optim.arrays_of(parameters)


def _random(seed: int) -> torch_optim.Arrays:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
