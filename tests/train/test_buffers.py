"""Steps on parameters that lie in buffers, on the CPU and as on a GPU, where a step is compiled too."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_unflatten

from tunebook import TrainingConfig
from tunebook.config import Optim
from tunebook.machine import runtime
from tunebook.models.tensors import flat
from tunebook.train import optim
from tunebook.train.optim import buffers
from tunebook.train.passes.compiled import why_not_here

torch = pytest.importorskip("torch")

from tunebook.parity.references.torch_optim import Reference, arrays_of, parameters_of, set_gradients  # noqa: E402

OPTIMIZERS = Optim.__args__
ADAPTERS = {
    f"layers.{layer}.{name}_proj.{leaf}": shape
    for layer in range(4)
    for name, outputs in (("q", 12), ("k", 4), ("up", 20))
    for leaf, shape in (("lora_a", (12, 2)), ("lora_b", (2, outputs)))
}
OTHERS = {f"layers.{layer}.input_layernorm.weight": (12,) for layer in range(4)} | {"embed_tokens.weight": (30, 12)}
ALL = ADAPTERS | OTHERS
RATES = {"lora_plus_ratio": 4.0, "embedding_learning_rate": 2e-4}


@pytest.fixture(params=["cpu", "metal"])
def backend(request, monkeypatch):
    if request.param == "metal" and (reason := why_not_here()) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(runtime, "backend", lambda: request.param)
    return request.param


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_on_buffers_are_those_of_the_reference_on_each_parameter_by_itself(name, backend):
    config = TrainingConfig(optim=name, learning_rate=1e-3, weight_decay=0.1, adam_beta2=0.95, **RATES)
    module = holder()
    parameters = parameters_of(numpy(module))
    optimizer, reference = optim.make_optimizer(config, module), Reference(parameters, config)
    assert len(optimizer.parts) < len(ALL) / 2
    for step in range(5):
        take_step(module, optimizer, step, rate=config.learning_rate)
        set_gradients(parameters, drawn(step))
        reference.step(config.learning_rate)
    expected = arrays_of(parameters)
    for path, array in numpy(module).items():
        assert np.allclose(array, expected[path], atol=2e-6), path


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_how_parameters_are_shared_out_changes_no_bit_and_nothing_of_what_is_saved(name, dtype, monkeypatch):
    """One buffer each is the plain way; the state goes by the names of parameters whatever the buffers are."""
    ends = []
    for small, most in ((2**18, 2**18), (40, 2**18), (2**18, 60), (0, 1)):
        monkeypatch.setattr(buffers, "SMALL", small)
        monkeypatch.setattr(buffers, "MOST", {runtime.backend(): most})
        module = holder(dtype)
        optimizer = optim.make_optimizer(TrainingConfig(optim=name, learning_rate=1e-3, **RATES), module)
        for step in range(3):
            take_step(module, optimizer, step, dtype=dtype)
        ends.append(flat(module.parameters()) | flat(optimizer.state))
    assert len({*map(len, ends)}) == 1
    for other in ends[:-1]:
        assert all(mx.array_equal(array, other[path]) for path, array in ends[-1].items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_gathered_is_spread_to_what_it_was(name):
    optimizer = optim.make_optimizer(TrainingConfig(optim=name), holder())
    gradients = {path: mx.array(array) for path, array in drawn(0).items()}
    spread = flat(optimizer.spread(optimizer.gathered(gradients)))
    assert spread.keys() == gradients.keys()
    assert all(mx.array_equal(spread[path], array) for path, array in gradients.items())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weights_that_were_put_into_the_module_between_two_steps_are_those_the_next_step_changes(name, backend):
    """The buffers hold those of the last step, and are not to be taken for the module's."""
    module, other = holder(), holder(seed=7)
    optimizer = optim.make_optimizer(TrainingConfig(optim=name, learning_rate=1e-3), module)
    take_step(module, optimizer, 0)
    one = next(iter(ADAPTERS))
    put = flat(other.parameters())[one]
    module.load_weights([(one, put)], strict=False)
    before = numpy(module)
    take_step(module, optimizer, 1)
    steps = {path: np.abs(array - before[path]).max() for path, array in numpy(module).items()}
    assert np.array_equal(before[one], np.array(put))
    assert all(0 < step < 0.01 for step in steps.values()), steps


@pytest.mark.parametrize("setting", [{}, {"max_grad_value": 0.1}])
def test_clipping_gathered_gradients_is_clipping_them_by_themselves(setting):
    config = TrainingConfig(**setting)
    optimizer = optim.make_optimizer(config, holder())
    tree = tree_unflatten([(path, mx.array(array)) for path, array in drawn(0).items()])
    alone, norm = optim.clip(tree, config)
    gathered, same_norm = optim.clip(optimizer.gathered(tree), config)
    assert same_norm.item() == pytest.approx(norm.item(), rel=1e-6)
    for path, array in flat(optimizer.spread(gathered)).items():
        assert np.allclose(np.array(array), np.array(flat(alone)[path]), rtol=1e-6), path


def holder(dtype=mx.float32, *, seed=1):
    module = nn.Module()
    for path, value in tree_unflatten([(path, mx.array(array)) for path, array in drawn(-seed).items()]).items():
        module[path] = value
    module.set_dtype(dtype)
    return module


def take_step(module, optimizer, seed, *, dtype=mx.float32, rate=1e-3):
    gradients = {path: mx.array(array).astype(dtype) for path, array in drawn(seed).items()}
    optim.update(module, optimizer.gathered(gradients), optimizer, rate=rate, weight_decay=0.1)
    mx.eval(module.parameters(), optimizer.held.arrays)


def drawn(seed):
    generator = np.random.default_rng(abs(seed) + 100 * (seed < 0))
    return {path: generator.normal(size=shape).astype(np.float32) for path, shape in ALL.items()}


def numpy(module):
    return {path: np.array(array.astype(mx.float32)) for path, array in flat(module.parameters()).items()}
