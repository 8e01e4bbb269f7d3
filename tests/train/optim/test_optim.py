import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tunebook import TrainingConfig
from tunebook.config import Optim
from tunebook.models.tensors import flat, save_tensors
from tunebook.train import optim

torch = pytest.importorskip("torch")

from tunebook.parity.references.torch_optim import Muon, Reference, arrays_of, parameters_of, set_gradients  # noqa: E402

OPTIMIZERS = Optim.__args__
LORA = {
    "layers.1.q_proj.lora_a": (6, 2),
    "layers.1.q_proj.lora_b": (2, 8),
    "layers.1.q_proj.m": (8,),
    "layers.1.input_layernorm.weight": (6,),
    "embed_tokens.weight": (10, 6),
}
FULL = {"layers.0.weight": (5, 3), "layers.0.bias": (5,), "input_layernorm.weight": (3,), "ln_f.weight": (3,)}


# Steps


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_are_those_of_the_reference_with_decay_on_matrices_alone(name):
    arrays, reference = five_steps(FULL, optim=name, learning_rate=0.02, weight_decay=0.1, adam_beta2=0.95)
    for path, array in arrays.items():
        assert np.allclose(array, reference[path], atol=2e-6), path


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_b_matrices_and_embeddings_at_rates_of_their_own(name):
    """torch's parameter groups are the reference, so decay goes with each group's rate too."""
    settings = {"lora_plus_ratio": 16.0, "embedding_learning_rate": 5e-5}
    arrays, reference = five_steps(LORA, optim=name, learning_rate=1e-3, weight_decay=0.1, **settings)
    for path, array in arrays.items():
        assert np.allclose(array, reference[path], atol=2e-6), path


def test_with_plain_gradient_descent_the_ratio_of_the_rates_is_the_ratio_of_the_steps():
    module = holder(LORA)
    before = numpy(module)
    config = TrainingConfig(optim="sgd", learning_rate=0.01, lora_plus_ratio=4.0, embedding_learning_rate=0.001)
    gradients = {name: mx.ones(shape) for name, shape in LORA.items()}
    optimizer = optim.make_optimizer(config, module)
    optim.update(module, optimizer.gathered(gradients), optimizer, rate=0.005, weight_decay=0.0)
    steps = {name: (before[name] - after).mean() for name, after in numpy(module).items()}
    assert steps["layers.1.q_proj.lora_a"] == pytest.approx(0.005, rel=1e-4)
    assert steps["layers.1.q_proj.lora_b"] == pytest.approx(0.02, rel=1e-4)
    assert steps["embed_tokens.weight"] == pytest.approx(0.0005, rel=1e-4)  # the schedule holds for it too


@pytest.mark.parametrize("setting", [{"lora_plus_ratio": 16.0}, {"embedding_learning_rate": 1e-5}])
def test_a_rate_for_parameters_that_are_not_there_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        optim.make_optimizer(TrainingConfig(**setting), holder(FULL))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_a_run_taken_up_from_its_saved_state_is_bit_for_bit_the_run_that_went_on(name, dtype, tmp_path):
    config = TrainingConfig(optim=name, learning_rate=1e-3, lora_plus_ratio=2.0, embedding_learning_rate=1e-4)
    whole = holder(LORA, dtype=dtype)
    optimizer = optim.make_optimizer(config, whole)
    for step in range(3):
        take_step(whole, optimizer, step, LORA, dtype=dtype)
    save_tensors(tmp_path / "state.safetensors", flat(optimizer.state))
    resumed = holder(LORA, seed=99, dtype=dtype)
    again = optim.make_optimizer(config, resumed)
    resumed.update(whole.parameters())
    state = mx.load(str(tmp_path / "state.safetensors"))
    again.state = tree_unflatten(list(state.items()))
    for step in range(3, 6):
        take_step(whole, optimizer, step, LORA, dtype=dtype)
        take_step(resumed, again, step, LORA, dtype=dtype)
    assert all(value.dtype == dtype for value in flat(resumed.parameters()).values())
    assert all(np.array_equal(array, numpy(whole)[path]) for path, array in numpy(resumed).items())
    assert all(mx.array_equal(value, flat(again.state)[path]) for path, value in flat(optimizer.state).items())


def test_the_state_of_another_optimizer_is_refused():
    theirs = optim.make_optimizer(TrainingConfig(optim="lion"), holder(FULL)).state
    optimizer = optim.make_optimizer(TrainingConfig(), holder(FULL))
    with pytest.raises(ValueError, match="does not fit"):
        optimizer.state = theirs


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_steps_too_small_for_half_precision_add_up(dtype):
    """One step of 2e-5 is lost on a weight of 1.0, whose neighbours are at least 5e-4 away; a thousand are not."""
    module = holder({"proj.weight": (4, 4)}, dtype=dtype)
    module.update({"proj": {"weight": mx.ones((4, 4), dtype)}})
    config = TrainingConfig(optim="lion", learning_rate=2e-5)
    optimizer = optim.make_optimizer(config, module)
    gradients = optimizer.gathered({"proj": {"weight": mx.ones((4, 4), dtype)}})
    for _ in range(1000):
        optim.update(module, gradients, optimizer, rate=2e-5, weight_decay=0.0)
        mx.eval(module.parameters(), optimizer.state)
    assert np.allclose(numpy(module)["proj.weight"], 1.0 - 0.02, atol=4e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_moments_of_half_precision_parameters_are_float32_from_the_start(name):
    state = optim.make_optimizer(TrainingConfig(optim=name), holder(FULL, dtype=mx.bfloat16)).state
    moments = {path: value.dtype for path, value in flat(state).items() if not path.endswith(".step")}
    assert {dtype for path, dtype in moments.items() if not path.startswith("remainders.")} == {mx.float32}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_half_precision_parameters_follow_the_float32_run_to_their_own_rounding(name):
    config = TrainingConfig(optim=name, learning_rate=1e-3, weight_decay=0.1)
    half, full = holder(FULL, dtype=mx.bfloat16), holder(FULL)
    full.update(tree_unflatten([(path, value.astype(mx.float32)) for path, value in flat(half.parameters()).items()]))
    pairs = [(module, optim.make_optimizer(config, module)) for module in (half, full)]
    for step in range(20):
        for module, optimizer in pairs:
            gradients = {path: mx.array(array).astype(mx.bfloat16) for path, array in random(FULL, step).items()}
            if module is full:
                gradients = {path: value.astype(mx.float32) for path, value in gradients.items()}
            optim.update(module, optimizer.gathered(gradients), optimizer, rate=1e-3, weight_decay=0.1)
            mx.eval(module.parameters(), optimizer.state)
    for path, array in numpy(half).items():
        assert np.allclose(array, numpy(full)[path], rtol=2**-8, atol=1e-5), path


def five_steps(shapes, **settings):
    """The parameters after five steps of ours, and of torch's, transformers' or the paper's."""
    config = TrainingConfig(**settings)
    module = holder(shapes)
    optimizer = optim.make_optimizer(config, module)
    parameters = parameters_of(numpy(module))
    reference = Reference(parameters, config)
    for step in range(1, 6):
        take_step(module, optimizer, step, shapes, rate=config.learning_rate, weight_decay=config.weight_decay)
        set_gradients(parameters, random(shapes, step))
        reference.step(config.learning_rate)
    return numpy(module), arrays_of(parameters)


def take_step(module, optimizer, seed, shapes, *, dtype=mx.float32, rate=1e-3, weight_decay=0.1):
    gradients = {path: mx.array(array).astype(dtype) for path, array in random(shapes, seed).items()}
    optim.update(module, optimizer.gathered(gradients), optimizer, rate=rate, weight_decay=weight_decay)
    mx.eval(module.parameters(), optimizer.state)


def test_the_reference_muon_is_torchs_to_the_precision_torch_iterates_in():
    parameters = [torch.nn.Parameter(torch.tensor(random({"w": (8, 3)}, 0)["w"])) for _ in range(2)]
    ours, reference = Muon(parameters[0], 0.02, 0.1), torch.optim.Muon([parameters[1]], lr=0.02, weight_decay=0.1)
    for step in range(1, 6):
        for parameter in parameters:
            parameter.grad = torch.tensor(random({"w": (8, 3)}, step)["w"])
        ours.step()
        reference.step()
    assert torch.allclose(parameters[0], parameters[1], atol=3e-3)


# Clipping


@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_clipping_by_the_global_norm_is_that_of_torch(scale):
    gradients = random(FULL, 0, scale)
    reference = in_torch(gradients)
    norm = torch.nn.utils.clip_grad_norm_(reference, 1.0)
    clipped, ours = clip(gradients)
    assert ours == pytest.approx(norm.item(), rel=1e-6)
    assert all(np.allclose(array, other.grad, atol=1e-6) for array, other in zip(clipped, reference, strict=True))


@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_clipping_each_tensor_by_its_own_norm_is_torchs_clipping_of_one_tensor_at_a_time(scale):
    gradients = random(FULL, 0, scale)
    reference = in_torch(gradients)
    for parameter in reference:
        torch.nn.utils.clip_grad_norm_([parameter], 0.5)
    clipped, norm = clip(gradients, max_grad_leaf_norm=0.5)
    assert norm == pytest.approx(clip(gradients)[1])
    assert all(np.allclose(array, other.grad, atol=1e-6) for array, other in zip(clipped, reference, strict=True))


def test_clipping_by_value_is_that_of_torch():
    gradients = random(FULL, 0)
    reference = in_torch(gradients)
    torch.nn.utils.clip_grad_value_(reference, 0.3)
    clipped, norm = clip(gradients, max_grad_value=0.3)
    assert norm == pytest.approx(clip(gradients)[1])
    assert all(np.array_equal(array, other.grad) for array, other in zip(clipped, reference, strict=True))


@pytest.mark.parametrize("off", [None, 0])
def test_with_clipping_off_large_gradients_are_left_alone(off):
    gradients = random(FULL, 0, 1000.0)
    clipped, norm = clip(gradients, max_grad_norm=off)
    assert norm > 1000
    assert all(np.array_equal(array, other) for array, other in zip(clipped, gradients.values(), strict=True))


@pytest.mark.parametrize("setting", [{}, {"max_grad_leaf_norm": 1.0}, {"max_grad_value": 1.0}])
@pytest.mark.cpu("the CPU build adds one after another, which the kit does in blocks there alone")
def test_clipping_keeps_the_type_and_norms_of_half_precision_do_not_overflow(setting):
    gradients = {"weight": mx.full((64, 64), 1000.0, dtype=mx.float16)}
    clipped, norm = optim.clip(gradients, TrainingConfig(**setting))
    assert norm.item() == pytest.approx(64 * 1000, rel=1e-6)
    assert clipped["weight"].dtype == mx.float16
    expected = 1.0 if setting.get("max_grad_value") else 1 / 64
    assert np.allclose(np.array(clipped["weight"]), expected, rtol=1e-3)


@pytest.mark.cpu("the CPU build adds one after another, which the kit does in blocks there alone")
def test_the_norm_of_a_large_tensor_is_that_of_float64():
    """MLX's own sum of four million squares is off by 1e-3 on the CPU."""
    gradient = random({"weight": (2048, 2048)}, 0)["weight"]
    norm = np.sqrt(np.square(gradient.astype(np.float64)).sum())
    assert optim.global_norm({"weight": mx.array(gradient)}).item() == pytest.approx(norm, rel=1e-6)


def clip(gradients, **settings):
    """(clipped arrays in the order of `gradients`, the norm before)."""
    tree = tree_unflatten([(path, mx.array(array)) for path, array in gradients.items()])
    clipped, norm = optim.clip(tree, TrainingConfig(**settings))
    return [np.array(flat(clipped)[path]) for path in gradients], norm.item()


def in_torch(gradients):
    parameters = [torch.nn.Parameter(torch.zeros(array.shape)) for array in gradients.values()]
    for parameter, array in zip(parameters, gradients.values(), strict=True):
        parameter.grad = torch.tensor(array)
    return parameters


# Parameters


def random(shapes, seed, scale=1.0):
    generator = np.random.default_rng(seed)
    return {name: (generator.normal(size=shape) * scale).astype(np.float32) for name, shape in shapes.items()}


def holder(shapes, *, seed=0, dtype=mx.float32):
    """A module with random arrays at the given paths."""
    module = nn.Module()
    arrays = [(name, mx.array(array).astype(dtype)) for name, array in random(shapes, seed).items()]
    for name, value in tree_unflatten(arrays).items():
        module[name] = value
    return module


def numpy(module):
    return {name: np.array(value.astype(mx.float32)) for name, value in tree_flatten(module.parameters())}
