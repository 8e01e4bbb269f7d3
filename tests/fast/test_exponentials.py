"""NumPy in float64 is what every claim here is checked against, on the machine's own way and on the other."""

import mlx.core as mx
import numpy as np
import pytest

from tunebook.fast.exponentials import exponential, log_sum_exp, sigmoid, softmax, softmax_gradient, summed, tanh
from tunebook.machine import runtime

X = mx.concatenate([mx.linspace(-30, 30, 2**15), mx.linspace(-1e-3, 1e-3, 2**15)]).reshape(64, 1024)
WIDE = np.array(X, np.float64)


@pytest.fixture(params=[True, False], ids=["powers", "MLX's own"])
def ways(request, monkeypatch):
    monkeypatch.setattr(runtime, "has_slow_exponentials", lambda: request.param)


def off(found, exact):
    return np.abs(np.array(found, np.float64) / exact - 1).max()


@pytest.mark.usefixtures("ways")
def test_exponentials_are_those_of_float64_to_a_few_units_in_the_last_place():
    assert off(exponential(X), np.exp(WIDE)) < 3e-6  # of e**30; a float32 is 6e-8 off to begin with, times 30
    near = mx.linspace(-5, 5, 4096)
    assert off(exponential(near), np.exp(np.array(near, np.float64))) < 6e-7


@pytest.mark.usefixtures("ways")
def test_exponentials_of_what_is_no_usual_number_are_those_of_ieee():
    found = np.array(exponential(mx.array([-np.inf, np.inf, np.nan, 0.0, -200.0, 200.0])))
    assert np.array_equal(found, [0, np.inf, np.nan, 1, 0, np.inf], equal_nan=True)


@pytest.mark.usefixtures("ways")
def test_sigmoid_and_tanh_are_those_of_float64():
    assert off(sigmoid(X), 1 / (1 + np.exp(-WIDE))) < 3e-6
    assert np.abs(np.array(tanh(X)) - np.tanh(WIDE)).max() < 3e-7
    for extreme, low, high in ((sigmoid, 0, 1), (tanh, -1, 1)):
        assert np.array_equal(np.array(extreme(mx.array([-np.inf, np.inf, -1e4, 1e4]))), [low, high, low, high])


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 65, 120)])
def test_softmax_and_its_gradient_are_those_of_the_formula(shape):
    x, weight = (3 * mx.random.normal(shape, key=mx.random.key(seed)) for seed in (1, 2))
    exact = np.exp(np.array(x, np.float64))
    exact /= exact.sum(-1, keepdims=True)
    wide = np.array(weight, np.float64)
    gradient = exact * (wide - (exact * wide).sum(-1, keepdims=True))
    assert np.abs(np.array(softmax(x)) - exact).max() < 1e-6
    assert np.abs(np.array(softmax_gradient(weight, softmax(x))) - gradient).max() < 3e-6


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_stays_what_it_is(dtype):
    x = X.astype(dtype)
    for ours, theirs in ((exponential, mx.exp), (sigmoid, mx.sigmoid), (tanh, mx.tanh)):
        assert ours(x).dtype == dtype
        assert np.array_equal(np.array(ours(x).astype(mx.float32)), np.array(theirs(x).astype(mx.float32)))


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("entries", [100, 256, 49_152, 50_257, 151_936])
def test_sums_over_a_large_vocabulary_are_those_of_float64(entries):
    """One number after another, as MLX's CPU build adds, the last is 2e-4 off."""
    logits = (4 * np.random.default_rng(0).standard_normal((3, entries))).astype(np.float32)
    exact = np.exp(logits.astype(np.float64)).sum(axis=-1, keepdims=True)
    assert off(summed(mx.array(np.exp(logits))), exact) < 2e-6
    assert np.abs(np.array(log_sum_exp(mx.array(logits))) - np.log(exact)).max() < 3e-6
