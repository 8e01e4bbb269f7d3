from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import base, llama

from tests.makers.tiny import ARCHITECTURES, tiny_model_folder
from tunebook import FastModel
from tunebook.fast import attention, blockwise_attention
from tunebook.fast.attention import block_attention
from tunebook.fast.blockwise_attention import attention_in_blocks
from tunebook.fast.forms import FORMS
from tunebook.fast.gradient_checkpointing import recomputed_layers
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.tokens.encoding import encode_rows

pytestmark = pytest.mark.float32


def states(queries=37, keys=37, heads=4, shared=2, width=8):
    mx.random.seed(0)
    return (
        mx.random.normal((2, heads, queries, width)),
        mx.random.normal((2, shared, keys, width)),
        mx.random.normal((2, shared, keys, width)),
    )


def by_hand(queries, keys, values, scale):
    """Softmax attention in float64, every query seeing the keys up to its own place; the last sees all."""
    queries, keys, values = (np.array(array).astype(np.float64) for array in (queries, keys, values))
    repeats = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat(repeats, axis=1), values.repeat(repeats, axis=1)
    scores = scale * queries @ keys.swapaxes(-1, -2)
    late = np.arange(scores.shape[-1]) > np.arange(scores.shape[-2])[:, None] + scores.shape[-1] - scores.shape[-2]
    weights = np.exp(np.where(late, -np.inf, scores))
    return weights / weights.sum(-1, keepdims=True) @ values


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("rows", [1, 8, 36, 37, 64])
def test_blocks_give_the_softmax_attention_of_the_formula(rows, recomputed):
    for keys in (37, 41):
        inputs = states(keys=keys)
        found = attention_in_blocks(*inputs, scale=0.3, rows=rows, recomputed=recomputed)
        assert np.abs(np.array(found) - by_hand(*inputs, 0.3)).max() < 1e-5


@pytest.mark.parametrize("written_out", [True, False])  # a gradient of our own, and the one MLX has
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize(("length", "rows"), [(37, 8), (37, 36), (130, 64)])  # the last has a softmax in halves
def test_blocks_give_the_gradients_of_attention_in_one(length, rows, recomputed, written_out):
    inputs = states(length, length)
    weight = mx.random.normal(inputs[0].shape)

    def whole(*inputs):
        return (mx.fast.scaled_dot_product_attention(*inputs, scale=0.3, mask="causal") * weight).sum()

    def blocks(*inputs):
        options = {"rows": rows, "recomputed": recomputed, "written_out": written_out}
        return (attention_in_blocks(*inputs, scale=0.3, **options) * weight).sum()

    plain, found = (mx.grad(function, argnums=(0, 1, 2))(*inputs) for function in (whole, blocks))
    for one, other in zip(plain, found, strict=True):
        assert mx.allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setitem(FORMS, "cpu", replace(FORMS["cpu"], attention_rows=16))


def gradients(model, batch):
    step = nn.value_and_grad(model.module, summed_loss(model.family))
    nats, found = step(model.module, batch, supervised_positions(batch))
    mx.eval(nats, found)
    return nats.item(), dict(tree_flatten(found))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_model_in_blocks_has_the_loss_and_gradients_of_the_plain_one(
    architecture, recomputed, tmp_path, rows, short_blocks
):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, architecture))
    FastModel.get_peft_model(model, r=4)
    batch = model.family.collate(encode_rows(rows[:4], model.loaded, max_seq_length=128).rows, width=65)
    nats, plain = gradients(model, batch)
    with block_attention(model.module, recomputed=recomputed):
        found, ours = gradients(model, batch)
    assert found == pytest.approx(nats, rel=1e-6)
    for path, gradient in ours.items():
        assert mx.allclose(gradient, plain[path], rtol=1e-4, atol=1e-5), path


def test_every_layer_of_the_model_works_in_blocks_and_nothing_else_changes(model, tmp_path):
    def kinds(module):
        return [type(layer) for layer in module.modules()]

    other = FastModel.from_pretrained(tiny_model_folder(tmp_path))[0].module
    before, others = kinds(model.module), kinds(other)
    with block_attention(model.module):
        changed = [name for name, layer in model.module.named_modules() if type(layer) not in before]
        assert changed == [name for name, _ in model.module.named_modules() if name.endswith("self_attn")]
        assert kinds(other) == others
        assert llama.scaled_dot_product_attention is base.scaled_dot_product_attention
    assert kinds(model.module) == before


def masks():
    """37 queries and keys: a window, an image seen whole, and a query that sees nothing."""
    window = base.create_causal_mask(37, window_size=5)
    image = base.create_causal_mask(37) | ((mx.arange(37)[:, None] < 9) & (mx.arange(37) < 9))
    nothing = window & (mx.arange(37)[:, None] != 20)
    return [window, image, nothing]


@pytest.mark.parametrize("written_out", [True, False])
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("mask", masks(), ids=["window", "image", "nothing"])
def test_masked_attention_in_blocks_has_the_values_and_gradients_of_that_in_one(mask, recomputed, written_out):
    inputs = states()
    weight = mx.random.normal(inputs[0].shape)

    def whole(*inputs):
        return (mx.fast.scaled_dot_product_attention(*inputs, scale=0.3, mask=mask) * weight).sum()

    def blocks(*inputs):
        options = {"recomputed": recomputed, "mask": mask, "written_out": written_out}
        return (attention_in_blocks(*inputs, scale=0.3, rows=8, **options) * weight).sum()

    value, plain = mx.value_and_grad(whole, argnums=(0, 1, 2))(*inputs)
    found, ours = mx.value_and_grad(blocks, argnums=(0, 1, 2))(*inputs)
    assert found.item() == pytest.approx(value.item(), rel=1e-5)
    assert all(mx.allclose(one, other, rtol=1e-5, atol=1e-5) for one, other in zip(plain, ours, strict=True))


def test_keys_outside_of_a_blocks_windows_are_not_met():
    queries, keys, values = states()
    window = base.create_causal_mask(37, window_size=5)
    met = [one.seen for one in blockwise_attention._masked_blocks(window, 8)]
    assert met == [slice(max(0, start - 4), min(37, start + 8)) for start in range(0, 37, 8)]
    poisoned = mx.where(mx.arange(37)[:, None] < 4, mx.nan, values)  # seen by the queries of the first block alone
    found = attention_in_blocks(queries, keys, poisoned, scale=0.3, rows=8, recomputed=False, mask=window)
    assert mx.isfinite(found[:, :, 8:]).all()


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_model_with_sliding_windows_in_blocks_has_the_loss_and_gradients_of_the_plain_one(
    recomputed, tmp_path, rows, short_blocks
):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, "gemma3", sliding_window=12))
    FastModel.get_peft_model(model, r=4)
    batch = model.family.collate(encode_rows(rows[:4], model.loaded, max_seq_length=128).rows, width=65)
    nats, plain = gradients(model, batch)
    with block_attention(model.module, recomputed=recomputed), recomputed_layers(model.module):
        found, ours = gradients(model, batch)
    assert found == pytest.approx(nats, rel=1e-6)
    for path, gradient in ours.items():
        assert mx.allclose(gradient, plain[path], rtol=1e-4, atol=1e-5), path


def test_what_differs_from_row_to_row_goes_through_mlx_lms_own_function(short_blocks, monkeypatch):
    taken = []
    monkeypatch.setattr(attention, "attention_in_blocks", lambda *args, **options: taken.append(args))
    queries, keys, values = states()
    window = base.create_causal_mask(37, window_size=5)
    for mask in (None, window[None, None]):
        own = base.scaled_dot_product_attention
        options = {"own": own, "forms": FORMS["cpu"], "recomputed": False}
        found = attention._instead(queries, keys, values, None, 0.3, mask, **options)
        plain = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3, mask=mask)
        assert mx.array_equal(found, plain)
    assert not taken


def test_generation_inside_is_generation_outside(model, short_blocks):
    tokens = mx.arange(40)[None]
    plain = model.module(tokens)
    with block_attention(model.module):
        assert mx.allclose(model.module(tokens), plain, atol=1e-5)


def test_with_recomputation_memory_grows_with_the_length_and_not_its_square():
    def peak(length):
        inputs = states(queries=length, keys=length, heads=2, shared=1, width=16)
        step = mx.grad(
            lambda *inputs: attention_in_blocks(*inputs, scale=0.25, rows=64, recomputed=True).sum(), argnums=(0, 1, 2)
        )
        mx.eval(inputs)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        for _ in range(3):  # how far MLX runs ahead of itself differs from time to time
            mx.eval(step(*inputs))
        return mx.get_peak_memory() - before

    short, long = peak(512), peak(2048)
    assert long < 5 * short
    assert long < 0.4 * (2 * 2 * 2048 * 2048 * 4)  # the scores of all, which the plain form keeps several times
