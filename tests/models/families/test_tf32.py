"""A sound model is called sound where products round what goes into them to 10 bits, as on an M5 or an NVIDIA GPU.

MLX's CPU build takes whole float32 products, so their inputs are rounded before it is given them.
"""

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.tiny_vision import FAMILIES
from tunebook import FastModel
from tunebook.machine import runtime
from tunebook.models.families.check import check_family
from tunebook.train.packing_check import why_not_packed


def rounded(array):
    """float32 to 10 bits of mantissa, to the nearest; gradients pass as if it were not done."""
    if array.dtype != mx.float32:
        return array
    bits = mx.stop_gradient(array).view(mx.uint32)
    near = mx.bitwise_and(bits + 0x1000, mx.array(0xFFFFE000, mx.uint32)).view(mx.float32)
    return array + mx.stop_gradient(near - array)


@pytest.fixture
def tf32(monkeypatch):
    by_operator, matmul, addmm = mx.array.__matmul__, mx.matmul, mx.addmm
    monkeypatch.setattr(mx.array, "__matmul__", lambda a, b: by_operator(rounded(a), rounded(b)))
    monkeypatch.setattr(mx, "matmul", lambda a, b, **options: matmul(rounded(a), rounded(b), **options))
    monkeypatch.setattr(
        mx, "addmm", lambda c, a, b, *more, **options: addmm(c, rounded(a), rounded(b), *more, **options)
    )
    monkeypatch.setattr(runtime, "backend", lambda: "metal")


@pytest.mark.usefixtures("tf32")
def test_the_imitation_rounds_to_ten_bits():
    a, b = (np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32) for seed in (0, 1))
    exact = a.astype(np.float64) @ b
    for found in (mx.array(a) @ mx.array(b), mx.matmul(mx.array(a), mx.array(b))):
        error = np.linalg.norm(np.array(found) - exact) / np.linalg.norm(exact)
        assert 1e-5 < error < 2**-10
    gradient = mx.grad(lambda x: (x @ mx.array(b)).sum())(mx.array(a))
    assert np.allclose(np.array(gradient), b.sum(axis=1), rtol=1e-2, atol=1e-2)


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_sound_vision_model_is_not_refused(name, vision_models):
    loaded = vision_models(name).loaded
    check_family(loaded.family, loaded.module)


@pytest.mark.usefixtures("tf32")
def test_a_model_that_packs_is_not_refused(tiny_folder):
    model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4)
    assert why_not_packed(model.loaded.family, model.loaded.module, max_seq_length=128) is None
