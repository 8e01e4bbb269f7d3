"""fast/gated_delta.py: values and gradients of the recurrence in float64 and of mlx-lm's own loop, in less memory."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.gated_delta import gated_delta_ops

from tunebook.fast.gated_delta import chunkwise, inverse_of_unit_lower, recomputed_chunkwise

NAMES = ("q", "k", "v", "log_decay", "beta", "state")
# Of log decays, for every token and head.
DECAYS = {
    "none": lambda noise: 0.0 * noise,
    "weak": lambda noise: -1e-3 * abs(noise),
    "usual": lambda noise: -abs(noise),
    "strong": lambda noise: -40.0 * abs(noise),
    "to nothing": lambda noise: -400.0 + 0.0 * noise,  # float32 has no exp(-400)
    "weak after strong": lambda noise: np.where(noise > 0.5, -300.0, -0.01 * abs(noise)),
}


def inputs(tokens, *, batch=2, keys=2, values=4, width=8, seed=0):
    """q, k, v, log_decay, beta, state as float64 NumPy arrays; keys are of length 1."""
    random = np.random.default_rng(seed)
    q, k = (random.normal(size=(batch, tokens, keys, width)) for _ in "qk")
    return {
        "q": q,
        "k": k / np.linalg.norm(k, axis=-1, keepdims=True),
        "v": random.normal(size=(batch, tokens, values, width // 2)),
        "log_decay": -0.3 * abs(random.normal(size=(batch, tokens, values))),
        "beta": 1 / (1 + np.exp(-random.normal(size=(batch, tokens, values)))),
        "state": random.normal(size=(batch, values, width // 2, width)),
    }


def recurrence(q, k, v, log_decay, beta, state):
    """The rule, a token at a time, in the type of what comes in: (y, the last state)."""
    q, k = (np.repeat(x, v.shape[2] // x.shape[2], axis=2) for x in (q, k))
    y = np.empty_like(v)
    for t in range(v.shape[1]):
        state = np.exp(log_decay[:, t])[..., None, None] * state
        old = np.einsum("bhvk,bhk->bhv", state, k[:, t])
        state = state + np.einsum("bhv,bhk->bhvk", beta[:, t][..., None] * (v[:, t] - old), k[:, t])
        y[:, t] = np.einsum("bhvk,bhk->bhv", state, q[:, t])
    return y, state


def weighed(outputs, seed=1):
    """One number of y and the state, in which every entry counts differently."""
    random = np.random.default_rng(seed)
    weights = [random.normal(size=output.shape) for output in outputs]
    if isinstance(outputs[0], np.ndarray):
        return sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
    return sum((output * mx.array(weight)).sum() for output, weight in zip(outputs, weights, strict=True))


def gradients(rule, some):
    """Of `weighed`, by name."""
    arrays = [mx.array(some[name]).astype(mx.float32) for name in NAMES]
    found = mx.grad(lambda *arrays: weighed(rule(*arrays)), argnums=tuple(range(len(NAMES))))(*arrays)
    return dict(zip(NAMES, (np.array(x) for x in found), strict=True))


def in_chunks(some, **options):
    y, state = chunkwise(*(mx.array(some[name]).astype(mx.float32) for name in NAMES), **options)
    return np.array(y), np.array(state)


def close(found, wanted, tolerance=1e-4):
    return np.abs(found - wanted).max() <= tolerance * max(1.0, np.abs(wanted).max())


def check(some, chunk):
    """Values against the recurrence, derivatives along random directions against its central differences."""
    assert all(
        close(found, wanted) for found, wanted in zip(in_chunks(some, chunk=chunk), recurrence(**some), strict=True)
    )
    found, random = gradients(lambda *arrays: chunkwise(*arrays, chunk=chunk), some), np.random.default_rng(2)
    for name in NAMES:
        direction = random.normal(size=some[name].shape) * 1e-6
        up, down = (weighed(recurrence(**{**some, name: some[name] + sign * direction})) for sign in (1, -1))
        derivative, size = (up - down) / 2e-6, float(np.linalg.norm(found[name])) + 1e-3
        assert (found[name] * direction).sum() / 1e-6 == pytest.approx(derivative, rel=1e-4, abs=1e-4 * size), name


@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 16, 21])
def test_of_any_number_of_tokens_values_and_gradients_are_those_of_the_recurrence_in_float64(tokens):
    check(inputs(tokens), chunk=8)


@pytest.mark.parametrize("chunk", [1, 3, 12, 64])
def test_the_size_of_a_chunk_changes_nothing(chunk):
    check(inputs(40), chunk)


@pytest.mark.parametrize("decay", DECAYS)
def test_decays_from_none_to_all_keep_values_and_gradients(decay):
    some = inputs(100)
    some["log_decay"] = DECAYS[decay](np.random.default_rng(3).normal(size=some["beta"].shape))
    check(some, chunk=64)


@pytest.mark.parametrize("beta", [0.0, 1e-4, 0.9999, 1.0, 2.0])
@pytest.mark.parametrize("decay", ["none", "usual"])
def test_weak_and_strong_writing_keeps_values_and_gradients(beta, decay):
    some = inputs(100)
    some["beta"] = np.full_like(some["beta"], beta)
    some["log_decay"] = DECAYS[decay](some["log_decay"])
    check(some, chunk=64)


def test_a_row_of_one_token_again_and_again_is_exact():
    """As in padding; there a series in powers of the matrix to invert has terms of 1e18."""
    some = inputs(100)
    for name in ("k", "beta", "log_decay"):
        some[name] = np.repeat(some[name][:, :1], 100, axis=1)
    some["beta"][:] = 1.0
    some["log_decay"][:] = -1e-4
    check(some, chunk=64)


def test_values_and_gradients_are_those_of_mlx_lms_loop():
    some = inputs(130, width=32)

    def loop(q, k, v, log_decay, beta, state):
        return gated_delta_ops(q, k, v, mx.exp(log_decay), beta, state)

    for rule in (chunkwise, loop):
        assert rule(*(mx.array(some[name]).astype(mx.float32) for name in NAMES))[1].shape == some["state"].shape
    found, wanted = gradients(chunkwise, some), gradients(loop, some)
    assert all(close(found[name], wanted[name]) for name in NAMES)


def test_a_sequence_in_two_parts_is_the_whole_when_the_state_is_handed_on():
    some = inputs(50)
    first, last = ({name: some[name][:, part] for name in NAMES[:-1]} for part in (slice(20), slice(20, None)))
    whole, end = in_chunks(some)
    early, state = in_chunks({**first, "state": some["state"]})
    late, again = in_chunks({**last, "state": state})
    assert close(np.concatenate([early, late], axis=1), whole, 1e-5)
    assert close(again, end, 1e-5)


def test_half_precision_comes_back_as_it_came_and_is_computed_in_float32():
    rounded = {name: mx.array(array).astype(mx.bfloat16) for name, array in inputs(70).items()}
    exact = {name: np.array(array.astype(mx.float32)).astype(np.float64) for name, array in rounded.items()}
    y, state = chunkwise(*rounded.values())
    wanted, last = recurrence(**exact)
    assert (y.dtype, state.dtype) == (mx.bfloat16, mx.float32)
    assert close(np.array(state), last)
    assert close(np.array(y.astype(mx.float32)), wanted, 2**-8)  # half a step of bfloat16

    def total(*arrays):
        return weighed([output.astype(mx.float32) for output in chunkwise(*arrays)])

    found = mx.grad(total, argnums=tuple(range(len(NAMES))))(*rounded.values())
    for name, gradient, full in zip(NAMES, found, gradients(chunkwise, exact).values(), strict=True):
        assert gradient.dtype == mx.bfloat16
        assert close(np.array(gradient.astype(mx.float32)), full, 2**-5), name


def test_an_inverse_times_its_matrix_is_one_and_its_gradient_that_of_the_equation():
    below = np.tril(np.random.default_rng(0).uniform(-1, 1, (3, 21, 21)), -1) / 4
    matrix = np.eye(21) + below
    assert close(np.array(inverse_of_unit_lower(mx.array(below).astype(mx.float32))), np.linalg.inv(matrix), 1e-5)
    cotangent = np.random.default_rng(1).normal(size=matrix.shape)
    inverse = np.linalg.inv(matrix).swapaxes(-1, -2)
    found = mx.grad(lambda x: (inverse_of_unit_lower(x) * mx.array(cotangent)).sum())(
        mx.array(below).astype(mx.float32)
    )
    assert close(np.array(found), np.tril(-inverse @ cotangent @ inverse, -1))


def test_heads_that_do_not_divide_are_refused():
    some = inputs(4, keys=2, values=3)
    with pytest.raises(ValueError, match="3 heads of values cannot share 2 of keys"):
        in_chunks(some)


def layers_of(rule, count):
    """Gradients through `count` layers one on the other, each of which makes q, k and v of its input."""

    def total(x, weights):
        for weight in weights:
            q, k, v = (y.reshape(1, -1, 2, 64) for y in mx.split(x @ weight, 3, axis=-1))
            gates = x[..., :2]
            k = k / mx.linalg.norm(k, axis=-1, keepdims=True)
            x = x + rule(q, k, v, -mx.sigmoid(-gates), mx.sigmoid(gates))[0].reshape(x.shape)
        return (x**2).mean()

    return mx.grad(total, argnums=[0, 1]), [
        mx.random.normal((128, 384), key=mx.random.key(n)) / 12 for n in range(count)
    ]


def peak(rule, tokens, count=1):
    """(bytes beyond the inputs, gradients)."""
    grad, weights = layers_of(rule, count)
    x = mx.random.normal((1, tokens, 128), key=mx.random.key(9))
    mx.eval(x, weights)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    found = grad(x, weights)
    mx.eval(found)
    return mx.get_peak_memory() - before, np.array(found[0])


def test_memory_is_a_fraction_of_the_loops():
    wanted, true = peak(lambda q, k, v, log_decay, beta: gated_delta_ops(q, k, v, mx.exp(log_decay), beta), 512)
    found, gradient = peak(chunkwise, 512)
    assert close(gradient, true)
    assert found < 0.2 * wanted


def test_memory_grows_with_the_tokens_also_over_many_chunks():
    eighth, whole = (peak(partial(chunkwise, chunk=8), tokens)[0] for tokens in (256, 2048))
    assert whole < 12 * eighth  # squared it were 64; a loaded machine keeps a quarter less at times, of either


def test_recomputed_it_has_the_same_gradients_and_keeps_less_for_every_layer():
    plain, recomputed = ([peak(rule, 512, count) for count in (1, 5)] for rule in (chunkwise, recomputed_chunkwise))
    assert close(recomputed[1][1], plain[1][1], 1e-6)
    assert recomputed[1][0] - recomputed[0][0] < 0.5 * (plain[1][0] - plain[0][0])
