import os
import threading

import mlx.core as mx
import numpy as np
import pytest

from tunebook.fast.activation_functions import GELU, SILU
from tunebook.fast.two_cores import FEWEST_ELEMENTS, in_halves
from tunebook.machine import runtime

SHAPES = [(257, 64), (3, 5, 33, 41), (1, 1, 2, FEWEST_ELEMENTS // 2), (1, FEWEST_ELEMENTS)]


@pytest.fixture
def calls(monkeypatch):
    """The shapes a counted exponential was asked for; the machine has two cores."""
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    return []


def counted(calls):
    def exponential(x):
        calls.append(x.shape)
        return mx.exp(x)

    return exponential


@pytest.mark.cpu
@pytest.mark.parametrize("shape", SHAPES)
def test_halves_give_every_element_the_bits_of_the_whole(calls, shape):
    x = mx.random.normal(shape, key=mx.random.key(0))
    assert np.array_equal(in_halves(counted(calls), x), mx.exp(x))
    rows = x.size // shape[-1]
    assert sorted(calls) == sorted([(rows // 2, shape[-1]), (rows - rows // 2, shape[-1])])


def test_small_arrays_and_single_cores_and_gpus_get_it_whole(calls, monkeypatch):
    small, large = mx.ones((2, FEWEST_ELEMENTS // 4)), mx.ones((2, FEWEST_ELEMENTS))
    in_halves(counted(calls), small)
    in_halves(counted(calls), mx.ones(FEWEST_ELEMENTS * 2))
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    in_halves(counted(calls), large)
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    monkeypatch.setattr(runtime, "backend", lambda: "metal")
    in_halves(counted(calls), large)
    assert calls == [small.shape, (FEWEST_ELEMENTS * 2,), large.shape, large.shape]


@pytest.mark.cpu
def test_several_arrays_are_cut_at_the_same_place(calls):
    one, other = (mx.random.normal((3, 5, 33, 41), key=mx.random.key(seed)) for seed in (0, 1))
    assert np.array_equal(in_halves(lambda x, y: counted(calls)(x) * y, one, other), mx.exp(one) * other)
    assert sorted(calls) == [(247, 41), (248, 41)]


@pytest.mark.parametrize(("curve", "plain"), [(SILU, mx.sigmoid), (GELU, None)])
def test_curves_are_the_same_on_one_core_and_on_two(calls, monkeypatch, curve, plain):
    gate = mx.random.normal((300, 128), key=mx.random.key(3)) * 4
    two = curve.kept(gate)
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    assert np.array_equal(two, curve.kept(gate))
    if plain is not None:
        assert mx.allclose(two, plain(gate), rtol=1e-6, atol=1e-7)


def test_every_thread_may_use_them(calls):
    x, found = mx.random.normal((300, 128), key=mx.random.key(4)), {}
    mx.eval(x)

    def work(name):
        found[name] = np.array(in_halves(mx.exp, x))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work("main")
    assert all(np.array_equal(one, np.array(mx.exp(x))) for one in found.values())
    assert len(found) == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such call on macOS")
def test_a_process_held_to_one_core_counts_one():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert runtime.cores.__wrapped__() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert runtime.cores.__wrapped__() == len(allowed)
