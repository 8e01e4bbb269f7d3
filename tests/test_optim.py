import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tunebook import TrainingConfig, optim

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_every_rate_is_the_one_transformers_gives(kind, warmup):
    from transformers import get_scheduler

    name = "constant_with_warmup" if kind == "constant" else kind
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=12)
    rate = optim.learning_rate(
        TrainingConfig(learning_rate=0.01, lr_scheduler_type=kind, warmup_steps=warmup), total_steps=12
    )
    for step in range(1, 13):
        assert rate(step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_a_minimum_rate_is_where_the_schedule_ends():
    rate = optim.learning_rate(
        TrainingConfig(learning_rate=0.01, lr_scheduler_type="cosine", warmup_steps=0, min_lr_rate=0.1), total_steps=100
    )
    assert rate(1) == pytest.approx(0.01)
    assert rate(101) == pytest.approx(0.001)


def random_trees(seed, scale=1.0):
    generator = np.random.default_rng(seed)
    shapes = {"layers.0.weight": (5, 3), "layers.0.bias": (5,), "input_layernorm.weight": (3,), "ln_f.weight": (3,)}
    return {name: (generator.normal(size=shape) * scale).astype(np.float32) for name, shape in shapes.items()}


class Holder(nn.Module):
    """A module with the given arrays at the given paths."""

    def __init__(self, arrays):
        super().__init__()
        self.update(tree_unflatten([(name, mx.array(array)) for name, array in arrays.items()]), strict=False)
        for name, value in tree_unflatten([(name, mx.array(array)) for name, array in arrays.items()]).items():
            self[name] = value


def test_five_steps_of_adamw_are_those_of_torch_with_decay_on_matrices_alone():
    start = random_trees(0)
    config = TrainingConfig(learning_rate=0.02, weight_decay=0.1, adam_beta2=0.95)
    module = Holder(start)
    optimizer = optim.make_optimizer(config, module)
    theirs = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in start.items()}
    decayed = [theirs["layers.0.weight"]]
    kept = [parameter for name, parameter in theirs.items() if name != "layers.0.weight"]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}], lr=0.02, betas=(0.9, 0.95)
    )
    for step in range(5):
        gradients = random_trees(step + 1)
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradients[name])
        reference.step()
        tree = tree_unflatten([(name, mx.array(array)) for name, array in gradients.items()])
        optim.update(module, tree, optimizer, rate=0.02, weight_decay=0.1)
    for name, array in tree_flatten(module.parameters()):
        assert np.allclose(np.array(array), theirs[name].detach().numpy(), atol=1e-6), name


@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_clipping_by_the_global_norm_is_that_of_torch(scale):
    gradients = random_trees(0, scale)
    theirs = [torch.nn.Parameter(torch.zeros(array.shape)) for array in gradients.values()]
    for parameter, array in zip(theirs, gradients.values(), strict=True):
        parameter.grad = torch.tensor(array)
    norm = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    tree = {name: mx.array(array) for name, array in gradients.items()}
    ours = optim.global_norm(tree)
    assert ours.item() == pytest.approx(norm.item(), rel=1e-6)
    clipped = optim.clip_by_global_norm(tree, ours, 1.0)
    for parameter, array in zip(theirs, clipped.values(), strict=True):
        assert np.allclose(np.array(array), parameter.grad.numpy(), atol=1e-6)


def test_the_norm_of_half_precision_gradients_does_not_overflow():
    gradients = {"weight": mx.full((64, 64), 1000.0, dtype=mx.float16)}
    assert optim.global_norm(gradients).item() == pytest.approx(math.sqrt(64 * 64) * 1000, rel=1e-6)
