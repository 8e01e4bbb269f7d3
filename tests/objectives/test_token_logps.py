"""Log-probabilities of tokens: their values and gradients, from a few logits at a time, in every form of a pass."""

from dataclasses import replace
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.makers.peaks import peak_bytes
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.fast.forms import forms_for
from tunebook.fast.training_form import training_form
from tunebook.objectives import DPO, ORPO
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.objectives.token_logps import token_logps
from tunebook.tokens.encoding import encode_rows
from tunebook.train.passes.compiled import CompiledPass, shape_of, why_not_here

pytestmark = pytest.mark.float32


def in_pieces(rows=8):
    return replace(forms_for(), logit_bytes=1, logit_rows=rows)


def batch_for(model, rows, width=65):
    encoded = encode_rows(rows[:4], model.loaded, max_seq_length=128).rows
    lengths = mx.array([len(row.tokens) for row in encoded])
    reference = mx.array(np.random.default_rng(3).normal(-60.0, 5.0, 4).astype(np.float32))
    return model.family.collate(encoded, width) | {"lengths": lengths, "reference_logps": reference}


def over_all_logits(module, batch):
    """(B, T-1) by a log-softmax of all logits."""
    logits = module(batch["tokens"][:, :-1]).astype(mx.float32)
    logps = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return mx.take_along_axis(logps, batch["tokens"][:, 1:, None], axis=-1)[..., 0]


def nonlinear(logps):
    """A number of them whose gradient is another at every token, and in every row."""
    return (mx.sin(logps).sum(axis=1) * mx.sigmoid(0.1 * logps.sum(axis=1) + 3.0)).sum()


def assert_alike(ours, plain, tolerance=1e-4):
    plain = dict(tree_flatten(plain))
    for name, gradient in tree_flatten(ours):
        distance = mx.linalg.norm((gradient - plain[name]).reshape(-1))
        assert distance.item() < tolerance * (mx.linalg.norm(plain[name].reshape(-1)).item() + 1e-6), name


HEADS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "4-bit": {"load_in_4bit": True},
    "trained embedding": {"modules_to_save": ["embed_tokens"]},
    "adapted head": {"tie_word_embeddings": False, "target_modules": ["q_proj", "lm_head"]},
    "full": {"full_finetuning": True},
}


@pytest.mark.parametrize("at_once", [1, 8, 1000])
@pytest.mark.parametrize("kind", HEADS)
def test_pieces_give_the_values_and_gradients_of_all_logits_for_every_kind_of_head(tmp_path, rows, kind, at_once):
    choice = dict(HEADS[kind])
    tie = choice.pop("tie_word_embeddings", True)
    adapt = {name: choice.pop(name) for name in ("modules_to_save", "target_modules") if name in choice}
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, tie_word_embeddings=tie), **choice)
    if "full_finetuning" not in choice:
        FastModel.get_peft_model(model, r=4, **adapt)
    batch = batch_for(model, rows)
    positions, asked = supervised_positions(batch), batch["loss_mask"][:, 1:].astype(mx.float32)
    logps = token_logps(model.family, in_pieces(at_once))

    def ours(module):
        return nonlinear(logps(module, batch, positions).logps)

    def plain(module):
        return nonlinear(over_all_logits(module, batch) * asked)

    np.testing.assert_allclose(
        logps(model.module, batch, positions).logps, over_all_logits(model.module, batch) * asked, atol=2e-5
    )
    found, gradients = nn.value_and_grad(model.module, ours)(model.module)
    expected, whole = nn.value_and_grad(model.module, plain)(model.module)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_alike(gradients, whole)


@pytest.mark.parametrize("at_once", [8, 1000])
def test_their_sum_is_the_next_token_loss(tuned, rows, at_once):
    batch, forms = batch_for(tuned, rows), in_pieces(at_once)
    positions = supervised_positions(batch)
    logps = token_logps(tuned.family, forms)

    def ours(module):
        return -logps(module, batch, positions).logps.sum()

    nats, plain = nn.value_and_grad(tuned.module, summed_loss(tuned.family, forms))(tuned.module, batch, positions)
    found, gradients = nn.value_and_grad(tuned.module, ours)(tuned.module)
    assert found.item() == pytest.approx(nats.item(), rel=1e-6)
    assert_alike(gradients, plain, 1e-5)


@pytest.mark.parametrize("at_once", [8, 1000])
@pytest.mark.parametrize("differentiable", [False, True])
def test_squares_are_those_of_the_whole_softmax(tuned, rows, at_once, differentiable):
    batch = batch_for(tuned, rows)
    positions = supervised_positions(batch)
    logps = token_logps(tuned.family, in_pieces(at_once), squares=True, differentiable=differentiable)
    softmax = mx.softmax(tuned.module(batch["tokens"][:, :-1]), axis=-1)
    expected = mx.log(softmax.square().sum(axis=-1)) * batch["loss_mask"][:, 1:]
    np.testing.assert_allclose(logps(tuned.module, batch, positions).log_squares, expected, atol=1e-5)


OBJECTIVES = [DPO(), DPO(use_weighting=True, ld_alpha=0.5), ORPO()]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_gradient_checkpointing_changes_nothing(tuned, rows, objective):
    batch = batch_for(tuned, rows)
    positions = objective.positions(batch)
    step = nn.value_and_grad(tuned.module, objective.summed(tuned.family, in_pieces()))
    (plain, _), gradients = step(tuned.module, batch, positions)
    with training_form(tuned.module, recomputed=True):
        (found, _), recomputed = step(tuned.module, batch, positions)
    assert found.item() == pytest.approx(plain.item(), rel=1e-6)
    assert_alike(recomputed, gradients, 1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("foreseen", [False, True])
def test_a_compiled_pass_gives_the_loss_metrics_and_gradients_of_the_plain_one(tuned, rows, objective, foreseen):
    if reason := why_not_here():
        pytest.skip(reason)
    batch = batch_for(tuned, rows)
    positions = objective.positions(batch)
    step = nn.value_and_grad(tuned.module, objective.summed(tuned.family, in_pieces()))
    (plain, sums), gradients = step(tuned.module, batch, positions)
    fast = CompiledPass(tuned.module, step, {shape_of(batch, positions)} if foreseen else set())
    (found, its_sums), compiled = fast(tuned.module, batch, positions)
    assert len(fast.compiled) == foreseen  # whose positions are padded
    assert found.item() == pytest.approx(plain.item(), rel=1e-5)
    assert objective.metrics(its_sums) == pytest.approx(objective.metrics(sums), rel=1e-5)
    assert_alike(compiled, gradients)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_what_is_measured_is_what_is_trained_on(tuned, rows, objective):
    batch = batch_for(tuned, rows)
    trained, sums = objective.summed(tuned.family)(tuned.module, batch, objective.positions(batch))
    measured, its_sums = objective.measured(tuned.family, tuned.module, batch, in_pieces())
    assert measured == pytest.approx(trained.item(), rel=1e-5)
    assert objective.metrics(its_sums) == pytest.approx(objective.metrics(sums), rel=1e-5)


def test_padding_changes_nothing(tuned, rows):
    objective, found = DPO(loss_type=["sigmoid", "sft"], ld_alpha=0.3), []
    for width in (65, 97):
        batch = batch_for(tuned, rows, width)
        found.append(objective.measured(tuned.family, tuned.module, batch)[0])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("asked", ["a gradient", "values"])
def test_with_a_large_vocabulary_the_logits_are_never_whole(tmp_path, trained, asked):
    """120 MB of logits in float32 are 360 with their gradient and what is between them."""
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path))
    model.module["model"]["embed_tokens"] = nn.Embedding(60_000, 64)
    model.module.freeze()
    FastModel.get_peft_model(model, r=4, modules_to_save=["embed_tokens"] if trained else None)
    tokens = mx.array(np.random.default_rng(0).integers(0, 60_000, (2, 257)))
    batch = {"tokens": tokens, "loss_mask": mx.ones(tokens.shape, mx.bool_), "lengths": mx.array([257, 257])}
    batch["reference_logps"] = mx.array([-2800.0, -2800.0])
    objective = DPO()
    peaks = {}
    for name, size in (("whole", 10**9), ("pieces", 8_000_000)):
        forms = replace(forms_for(), logit_bytes=size, logit_rows=16)
        step = nn.value_and_grad(model.module, objective.summed(model.family, forms))
        if asked == "a gradient":
            work = partial(step, model.module, batch, objective.positions(batch))
        else:
            work = partial(objective.measured, model.family, model.module, batch, forms)
        peaks[name] = peak_bytes(work)
    assert peaks["whole"] > (300e6 if asked == "a gradient" else 120e6)  # a kernel of MLX's makes nothing but logits
    assert peaks["pieces"] < 0.45 * peaks["whole"]
