"""shifted_norms.py: Gemma's norms give what they gave, from weights that are put together once."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import gemma3_text

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.fast.shifted_norms import norms_shifted_once


def norms_changed(module):
    plain = {id(part): type(part) for part in module.modules()}
    with norms_shifted_once(module):
        return [part for part in module.modules() if type(part) is not plain[id(part)]]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_norm_gives_what_it_gave_and_so_does_its_gradient(dtype):
    norm = gemma3_text.RMSNorm(16)
    norm.weight = mx.random.normal((16,)).astype(dtype)
    norm.freeze()
    x = mx.random.normal((2, 5, 16)).astype(dtype)

    def found():
        return mx.value_and_grad(lambda x: (norm(x) * x).astype(mx.float32).sum())(x)

    value, gradient = found()
    with norms_shifted_once(norm):
        shifted_value, shifted_gradient = found()
    assert mx.array_equal(value, shifted_value)
    assert mx.array_equal(gradient, shifted_gradient)


def test_norms_that_are_trained_and_norms_of_other_models_stay_as_they_are(tmp_path):
    frozen, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "gemma3", "gemma3"))
    FastModel.get_peft_model(frozen, r=4)
    changed = norms_changed(frozen.module)
    assert changed == [part for part in frozen.module.modules() if isinstance(part, gemma3_text.RMSNorm)]
    assert len(changed) > 4
    trained, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "trained", "gemma3"), full_finetuning=True)
    other, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "llama"))
    assert not norms_changed(trained.module)
    assert not norms_changed(other.module)
    assert any(isinstance(part, nn.RMSNorm) for part in other.module.modules())
