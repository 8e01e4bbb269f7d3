"""train/packing_check.py: each packed document trains as it does alone; a model with which it would not is refused.

The judge of the losses and gradients is the plain one: every document by itself through the whole model, all logits.
"""

import re

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tests.makers.arrays import in_numpy
from tests.makers.packed_rows import (
    CARRY_STATE,
    COHERE2,
    GPT2,
    LENGTHS,
    MINISTRAL3,
    ROW,
    agree,
    means,
    opened,
    packed_batch,
    plain_nats,
    rows_of,
)
from tests.makers.peaks import peak_bytes
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, TrainingConfig
from tunebook.fast.gradient_checkpointing import recomputed_layers
from tunebook.models.tensors import flat
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.tokens.packing import pack
from tunebook.train.packing_check import why_not_packed
from tunebook.train.passes.compiled import CompiledPass, padded_count
from tunebook.train.step import Stepper


@pytest.mark.parametrize(
    "settings",
    [
        *({"architecture": name} for name in ("llama", "qwen2", "qwen3", "gemma3", "phi3", "smollm3")),
        {"architecture": "llama", "adapters": False},
        {"architecture": "llama", "load_in_4bit": True},
        {"architecture": "gemma3", "load_in_4bit": True},
        COHERE2,
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
@pytest.mark.float32
def test_packed_documents_have_the_loss_and_gradients_they_have_alone(tmp_path, settings, recomputed):
    model = opened(tmp_path, **settings)
    alone = means(model.module, plain_nats, rows_of(LENGTHS))
    if recomputed:
        with recomputed_layers(model.module):
            packed = means(model.module, summed_loss(model.family), *packed_batch(model))
    else:
        packed = means(model.module, summed_loss(model.family), *packed_batch(model))
    assert agree(packed, alone)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_documents_put_together_without_segments_have_another_loss(tmp_path, architecture):
    model = opened(tmp_path, architecture)
    alone = means(model.module, plain_nats, rows_of(LENGTHS))
    batch, positions = packed_batch(model)
    del batch["segments"]
    together = means(model.module, summed_loss(model.family), batch, positions)
    assert abs(together[0] - alone[0]) > 1e-3
    assert not agree(together, alone)


def test_recomputing_layers_of_packed_rows_peaks_lower(tmp_path):
    model = opened(tmp_path, num_hidden_layers=12)
    batch = model.family.collate(pack(rows_of([50, 60, 70, 20, 56]), 128, seed=0), 128)

    positions = supervised_positions(batch)[-8:]
    plain = peak_bytes(lambda: means(model.module, summed_loss(model.family), batch, positions))
    with recomputed_layers(model.module):
        assert peak_bytes(lambda: means(model.module, summed_loss(model.family), batch, positions)) < 0.5 * plain


def test_a_compiled_pass_takes_packed_and_other_batches_in_turn(tmp_path):
    model = opened(tmp_path)
    batch, positions = packed_batch(model)
    plain = nn.value_and_grad(model.module, summed_loss(model.family))
    fast = CompiledPass(model.module, plain, {(*batch["tokens"].shape, padded_count(positions.size))})
    unpacked = {name: batch[name] for name in ("tokens", "loss_mask")}
    for some in (batch, unpacked, batch):
        (nats, gradients), (true_nats, true_gradients) = (run(model.module, some, positions) for run in (fast, plain))
        assert nats.item() == pytest.approx(true_nats.item(), rel=1e-5)
        wanted = flat(true_gradients)
        assert all(mx.allclose(array, wanted[name], atol=1e-4).item() for name, array in flat(gradients).items())
    assert len(fast.compiled) == 1


@pytest.mark.float32
def test_steps_over_packed_rows_are_the_steps_over_the_documents(tmp_path):
    def outcomes(rows, folder):
        model = opened(tmp_path / folder)
        config = TrainingConfig(learning_rate=1e-2, warmup_steps=0)
        stepper = Stepper(model.loaded, config, rows, total_steps=4, max_seq_length=ROW)
        found = []
        for step in (1, 2, 3):
            stepper.begin(step)
            for start in range(0, len(rows), 2):
                stepper.add(rows[start : start + 2], alone=False)
            outcome = stepper.finish()
            found += [outcome.loss, outcome.grad_norm, outcome.tokens]
        return found

    packed = outcomes(pack(rows_of(LENGTHS), ROW, seed=0), "packed")
    assert packed == pytest.approx(outcomes(rows_of(LENGTHS), "alone"), rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3", "phi3", "smollm3"])
def test_models_of_attention_alone_pass_the_proof_and_are_left_as_they_were(tmp_path, architecture):
    model = opened(tmp_path, architecture)
    before = {name: in_numpy(array) for name, array in flat(model.module.parameters()).items()}
    assert why_not_packed(model.family, model.module, max_seq_length=128) is None
    assert model.module.training
    assert all(np.array_equal(in_numpy(array), before[name]) for name, array in flat(model.module.parameters()).items())


def test_half_precision_passes_the_proof(tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, num_hidden_layers=8), dtype="bfloat16")
    FastModel.get_peft_model(model, r=4)
    assert why_not_packed(model.family, model.module, max_seq_length=128) is None


@pytest.mark.parametrize("model_type", CARRY_STATE)
def test_a_model_that_carries_state_is_refused_and_told_why(tmp_path, model_type):
    folder = tiny_model_folder(tmp_path, model_type=model_type, **CARRY_STATE[model_type])
    model, _ = FastModel.from_pretrained(folder)
    reason = why_not_packed(model.family, model.module, max_seq_length=128)
    assert reason is not None
    assert "keep state of their own from token to token (ArraysCache)" in reason
    with pytest.raises(ValueError, match="keep state of their own"):
        model.family.hidden(model.module, model.family.collate(pack(rows_of([5, 6]), ROW, seed=0), ROW))


@pytest.mark.parametrize(("model_type", "overrides"), [("gpt2", GPT2), ("ministral3", MINISTRAL3)])
def test_a_model_that_counts_positions_from_the_start_of_the_row_is_refused(tmp_path, model_type, overrides):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, model_type=model_type, **overrides))
    reason = why_not_packed(model.family, model.module, max_seq_length=256)
    assert reason is not None
    assert "counts positions from the start of the row" in reason


def test_a_model_whose_documents_see_one_another_is_refused(model):
    trunk = model.module.model

    class Deaf(type(trunk)):
        def __call__(self, inputs, cache=None):
            return super().__call__(inputs)

    assert why_not_packed(model.family, model.module, max_seq_length=128) is None
    trunk.__class__ = Deaf
    reason = why_not_packed(model.family, model.module, max_seq_length=128)
    assert reason is not None
    assert "sees past the start of a document" in reason


def test_a_model_whose_gradients_alone_differ_is_refused(tuned):
    trunk = tuned.module.model

    class Doubling(type(trunk)):
        def __call__(self, inputs, cache=None):
            states = super().__call__(inputs, cache)
            return states if cache is None else 2 * states - mx.stop_gradient(states)

    trunk.__class__ = Doubling
    reason = why_not_packed(tuned.family, tuned.module, max_seq_length=128)
    assert re.fullmatch(r"the gradients of packed documents differ by 100\.\d%", reason or "")


def test_a_model_that_takes_no_cache_is_refused_with_the_error(model):
    trunk = model.module.model

    class Bare(type(trunk)):
        def __call__(self, inputs):
            return super().__call__(inputs)

    trunk.__class__ = Bare
    reason = why_not_packed(model.family, model.module, max_seq_length=128)
    assert reason is not None
    assert "unexpected keyword argument 'cache'" in reason


def test_a_model_that_takes_no_mask_for_each_row_is_refused(tmp_path):
    """Gemma 2 of mlx-lm 0.32 groups its heads, and takes two rows of a mask for two groups without a complaint."""
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, model_type="gemma2"))
    reason = why_not_packed(model.family, model.module, max_seq_length=128)
    assert reason is not None
    assert "the states of a document change" in reason


def test_weights_that_are_not_finite_do_not_pass_for_a_proof(model):
    norm = model.module.model.norm
    norm.weight = norm.weight * mx.nan
    assert why_not_packed(model.family, model.module, max_seq_length=128) is not None
