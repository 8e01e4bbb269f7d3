"""The part computed in one, through MLX's own gradients, is what every claim here is checked against."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models import llama
from mlx_lm.tuner.lora import LoRALinear

from tests.fast.test_gated_mlp import KINDS, assert_same_as_plain, batch_of, tuned_model
from tests.makers.tiny import tiny_config
from tunebook.fast import token_chunks
from tunebook.fast.forms import forms_for
from tunebook.fast.gated_mlp import lean_mlps

pytestmark = pytest.mark.float32


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_the_part_in_one(kind, tmp_path, rows):
    short = replace(forms_for(), mlp_tokens=48)
    model = tuned_model(tmp_path, kind)
    # Four rows of 64: the last chunk is a short one.
    assert_same_as_plain(model, batch_of(model, rows), forms=short, recomputed=True)


def test_what_is_summed_over_chunks_is_summed_in_float32():
    part = nn.Linear(1, 1, bias=False)
    part.set_dtype(mx.bfloat16)
    x = mx.concatenate([mx.full((1, 1), 256.0), mx.ones((64, 1))]).astype(mx.bfloat16)  # 256 + 1 is 256 in bfloat16

    def total(part):
        return token_chunks.in_chunks(part, nn.Linear.__call__, x, 1).astype(mx.float32).sum()

    _, gradient = nn.value_and_grad(part, total)(part)
    assert gradient["weight"].item() == 320
    assert gradient["weight"].dtype == mx.bfloat16


def test_a_part_that_drops_something_is_computed_in_one(tmp_path):
    model = tuned_model(tmp_path, "llama", lora_dropout=0.1, target_modules=["gate_proj"])

    def changes():
        """How many calls stand in for each part's own, one class beneath the other."""
        return [len(type(part).__mro__) for part in model.module.modules()]

    plain = changes()
    with lean_mlps(model.module):
        lean = changes()
    with lean_mlps(model.module, recomputed=True):
        assert changes() == lean != plain


def test_beyond_a_chunk_memory_grows_with_the_narrow_side_alone():
    settings = tiny_config("llama", hidden_size=16, intermediate_size=2048, vocab_size=32)
    part = llama.MLP(llama.ModelArgs.from_dict(settings))
    part.freeze()
    part.update_modules({name: LoRALinear.from_base(part[name], r=2) for name in ("gate_proj", "up_proj", "down_proj")})

    def peak(tokens):
        x = mx.random.normal((1, tokens, 16))
        mx.eval(part.parameters(), x)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        with lean_mlps(part, forms, recomputed=True):
            found = nn.value_and_grad(part, lambda part: part(x).sum())(part)
        mx.eval(found)
        assert np.isfinite(found[0].item())
        return mx.get_peak_memory() - before

    forms = replace(forms_for(), mlp_tokens=512)
    few, many = (count * forms.mlp_tokens for count in (16, 48))  # MLX has a few chunks at hand whatever there is
    assert peak(many) - peak(few) < 0.3 * 4 * 2048 * (many - few)  # of one wide array, of which seven are made
