"""rows_apart.py: rows of other lengths, each by itself, have the loss and gradients they have side by side."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tests.fast.test_forms import adapted
from tests.makers.packed_rows import CARRY_STATE, opened, packed_batch
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, TrainingConfig
from tunebook.data.encoded import Encoded
from tunebook.fast.forms import FORMS
from tunebook.fast.rows_apart import LEAST_SAVED, groups_of
from tunebook.fast.training_form import training_form
from tunebook.models.layer_calls import replaced_calls
from tunebook.models.tensors import flat
from tunebook.objectives import DPO
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.objectives.reference import Reference
from tunebook.train.step import Stepper

pytestmark = pytest.mark.float32

APART = replace(FORMS["cpu"], rows="apart")
TOGETHER = replace(APART, rows="together")
ASKED = [(150, 140), (40, 20), (60, 15), (150, 30), (90, 90)]  # tokens of a row, and the last that is supervised


def rows():
    """Some end in many tokens that are not supervised."""
    numbers = np.random.default_rng(0)
    return [
        Encoded(
            tokens=numbers.integers(3, 500, tokens).astype(np.int32),
            loss_mask=(np.arange(tokens) >= last - 12) & (np.arange(tokens) < last),
        )
        for tokens, last in ASKED
    ]


def widths_of(module, run):
    """(rows, tokens) of each call of the first layer's attention while `run()` is evaluated."""
    found = []

    def noting(plain):
        def call(layer, x, *args, **kwargs):
            found.append(x.shape[:2])
            return plain(layer, x, *args, **kwargs)

        return call

    with replaced_calls([module.model.layers[0]], noting):
        mx.eval(run())
    return found


@pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen3_5", "mamba"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_loss_and_gradients_are_those_of_rows_side_by_side(kind, recomputed, tmp_path):
    if kind in CARRY_STATE:
        folder = tiny_model_folder(tmp_path, model_type=kind, **CARRY_STATE[kind])
    else:
        folder = tiny_model_folder(tmp_path, kind)
    model = adapted(FastModel.from_pretrained(folder)[0])
    batch = model.family.collate(rows(), 161)

    def found(forms):
        step = nn.value_and_grad(model.module, summed_loss(model.family, forms))
        with training_form(model.module, forms, recomputed=recomputed):
            return step(model.module, batch, supervised_positions(batch))

    (loss, gradients), (expected, of_all) = found(APART), found(TOGETHER)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    largest = max(np.abs(np.array(value)).max() for value in flat(of_all).values())
    for name, value in flat(of_all).items():
        np.testing.assert_allclose(np.array(flat(gradients)[name]), np.array(value), atol=3e-5 * largest, err_msg=name)


def test_no_token_is_computed_that_nobody_asked_for(tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path))
    batch, positions = model.family.collate(rows(), 161), supervised_positions(model.family.collate(rows(), 161))

    def found(forms):
        return widths_of(model.module, lambda: summed_loss(model.family, forms)(model.module, batch, positions))

    assert found(TOGETHER) == [(5, 160)]
    assert found(APART) == [(1, 139), (1, 89), (3, 29)]


def test_groups_hold_each_row_once_and_no_padding_that_is_worth_a_pass():
    numbers = np.random.default_rng(0)
    for _ in range(200):
        lengths = numbers.integers(0, 400, numbers.integers(1, 12))
        groups = groups_of(lengths)
        assert sorted(row for group in groups for row in group) == list(np.flatnonzero(lengths))
        for group in groups:
            assert lengths[group].max() - lengths[group].min() < LEAST_SAVED
            assert list(group) == sorted(group)


def test_documents_that_share_a_row_stay_together(tmp_path):
    model = opened(tmp_path)
    batch, _ = packed_batch(model)
    assert model.family.part(batch, np.arange(1), 8) is None


@pytest.mark.parametrize("changes", [{"compile": True}, {"neftune_noise_alpha": 5.0}])
def test_where_the_width_of_a_batch_counts_rows_are_together(changes, tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path))
    FastModel.get_peft_model(model, r=4)
    config = TrainingConfig(max_steps=2, per_device_train_batch_size=5, gradient_accumulation_steps=1, **changes)
    stepper = Stepper(model.loaded, config, rows(), total_steps=2, max_seq_length=512, forms=APART)

    def a_step():
        stepper.begin(1, rows())
        stepper.add(rows(), alone=True)
        return model.module.parameters()

    assert set(widths_of(model.module, a_step)) == {(5, 160)}


def test_both_sides_of_a_pair_go_as_far_as_they_are_asked_for(tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path))
    FastModel.get_peft_model(model, r=4)
    long, short = rows()[0], rows()[1]
    pair = Encoded(
        tokens=np.concatenate([long.tokens, short.tokens]),
        loss_mask=np.concatenate([long.loss_mask, short.loss_mask]),
        second=len(long.tokens),
    )
    config = TrainingConfig(max_steps=2, per_device_train_batch_size=1, gradient_accumulation_steps=1)
    reference = Reference(model.module, DPO())
    reference.settle()
    stepper = Stepper(
        model.loaded,
        config,
        [pair],
        total_steps=2,
        max_seq_length=512,
        forms=APART,
        objective=DPO(),
        reference=reference,
    )

    def a_step():
        stepper.begin(1, [pair])
        stepper.add([pair], alone=True)
        return model.module.parameters()

    assert widths_of(model.module, a_step) == [(1, 139), (1, 19)] * 2  # the reference, and the step


def test_no_gpu_takes_its_rows_apart():
    assert {FORMS[backend].rows for backend in ("metal", "cuda")} == {"together"}
