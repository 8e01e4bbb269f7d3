import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.tiny import tiny_model_folder
from tunebook import FastModel, TrainingConfig
from tunebook.encoding import encode_rows
from tunebook.families.base import Encoded
from tunebook.last_mlp import gives_the_same, supervised_mlp
from tunebook.loss import summed_loss, supervised_positions
from tunebook.recompute import recomputed_layers
from tunebook.step import Stepper
from tunebook.variants import vary


def gradients(model, batch):
    step = nn.value_and_grad(model.module, summed_loss(model.family))
    nats, found = step(model.module, batch, supervised_positions(batch))
    mx.eval(nats, found)
    return nats.item(), dict(tree_flatten(found))


def batch_of(model, *, segments=None):
    """Two rows of 33 tokens, supervised here and there, one of the rows at its very end."""
    draw = np.random.default_rng(0)
    rows = [
        Encoded(tokens=draw.integers(1, 200, 33).astype(np.int32), loss_mask=np.arange(33) >= first, segments=segments)
        for first in (10, 30)
    ]
    return model.family.collate(rows, width=33)


def assert_same_gradients(ours, plain):
    whole = mx.sqrt(sum((gradient**2).sum() for gradient in plain.values())).item()
    for path, gradient in ours.items():
        assert mx.linalg.norm((gradient - plain[path]).reshape(-1)).item() < 1e-6 * whole, path


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen3_moe"])
@pytest.mark.parametrize("full", [False, True])
def test_loss_and_gradients_are_those_of_the_whole_mlp(architecture, full, tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, architecture), full_finetuning=full)
    if not full:
        FastModel.get_peft_model(model, r=4)
    batch = batch_of(model)
    assert gives_the_same(model.family, model.module)
    nats, plain = gradients(model, batch)
    with supervised_mlp(model.module, batch, supervised_positions(batch)):
        found, ours = gradients(model, batch)
        with recomputed_layers(model.module):
            again, recomputed = gradients(model, batch)
    assert found == pytest.approx(nats, rel=1e-6)
    assert again == pytest.approx(nats, rel=1e-6)
    assert_same_gradients(ours, plain)
    assert_same_gradients(recomputed, plain)


def test_documents_that_share_a_row_keep_their_gradients(tuned):
    batch = batch_of(tuned, segments=(np.arange(33) // 12).astype(np.int32))
    nats, plain = gradients(tuned, batch)
    with supervised_mlp(tuned.module, batch, supervised_positions(batch)):
        found, ours = gradients(tuned, batch)
    assert found == pytest.approx(nats, rel=1e-6)
    assert_same_gradients(ours, plain)


def seen_by_last_mlp(module):
    """The list its inputs' shapes are put in from now on."""
    shapes = []

    def noting(plain):
        def call(layer, x):
            shapes.append(x.shape)
            return plain(layer, x)

        return call

    vary(module.layers[-1].mlp, noting)
    return shapes


@pytest.mark.parametrize(("compiles", "shape"), [(False, (1, 24, 64)), (True, (2, 32, 64))])
def test_a_step_sends_supervised_positions_through_it_unless_the_pass_is_compiled(compiles, shape, tuned):
    draw = np.random.default_rng(0)
    rows = [
        Encoded(tokens=draw.integers(1, 200, 33).astype(np.int32), loss_mask=np.arange(33) >= first)
        for first in (11, 31)
    ]
    config = TrainingConfig(compile=compiles, per_device_train_batch_size=2, gradient_accumulation_steps=1)
    stepper = Stepper(tuned.loaded, config, rows, total_steps=1, max_seq_length=33)
    shapes = seen_by_last_mlp(tuned.module)
    stepper.begin(1)
    stepper.add(rows, alone=True)
    assert set(shapes) == {shape}
    assert not stepper.notices


def test_with_nearly_all_supervised_the_mlp_runs_whole(tuned):
    shapes = seen_by_last_mlp(tuned.module)
    tokens = mx.ones((2, 33), mx.int32)
    batch = {"tokens": tokens, "loss_mask": mx.ones(tokens.shape, mx.bool_)}
    with supervised_mlp(tuned.module, batch, supervised_positions(batch)):
        gradients(tuned, batch)
    assert set(shapes) == {(2, 32, 64)}


def test_a_model_that_mixes_positions_behind_its_last_mlp_is_told_and_trained_whole(tuned, rows):
    """Its last layer hands every position what the one before it came to."""

    def mixing(plain):
        def call(layer, *args, **kwargs):
            states = plain(layer, *args, **kwargs)
            return states + mx.pad(states[:, :-1], [(0, 0), (1, 0), (0, 0)])

        return call

    vary(tuned.module.layers[-1], mixing)
    assert not gives_the_same(tuned.family, tuned.module)
    encoded = encode_rows(rows[:2], tuned.loaded, max_seq_length=128).rows
    stepper = Stepper(tuned.loaded, TrainingConfig(), encoded, total_steps=1, max_seq_length=128)
    assert [notice for notice in stepper.notices if "last layer's MLP" in notice]
    shapes = seen_by_last_mlp(tuned.module)
    stepper.begin(1)
    stepper.add(encoded, alone=True)
    assert all(shape[0] == 2 for shape in shapes)
