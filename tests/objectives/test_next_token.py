from dataclasses import replace
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from tests.makers.arrays import in_numpy
from tests.makers.peaks import peak_bytes
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.fast.forms import forms_for
from tunebook.objectives.next_token import measured_nats, summed_loss, supervised_positions
from tunebook.tokens.encoding import encode_rows


@pytest.fixture
def batch(tuned, rows):
    encoded = encode_rows(rows[:4], tuned.loaded, max_seq_length=128).rows
    return tuned.family.collate(encoded, width=65)


def roundings(model):
    """How far gradients may be apart that are the same but for the order of sums, relative."""
    return 1e-4 if model.loaded.dtype == mx.float32 else 0.02


def reference(module, batch):
    """Nats and count from float64 log-softmax over all logits, position by position, in NumPy."""
    tokens, mask = np.array(batch["tokens"]), np.array(batch["loss_mask"])
    logits = in_numpy(module(batch["tokens"][:, :-1])).astype(np.float64)
    nats = []
    for row, position in zip(*np.nonzero(mask[:, 1:]), strict=True):
        scores = logits[row, position]
        top = scores.max()
        nats.append(top + np.log(np.exp(scores - top).sum()) - scores[tokens[row, position + 1]])
    return sum(nats), len(nats)


def test_the_loss_is_the_sum_of_nats_over_supervised_tokens(tuned, batch):
    positions = supervised_positions(batch)
    nats, count = reference(tuned.module, batch)
    assert positions.size == count
    assert summed_loss(tuned.family)(tuned.module, batch, positions).item() == pytest.approx(nats, rel=1e-5)


def test_its_gradient_is_that_of_the_loss_over_all_logits(tuned, batch):
    def over_all_logits(module, batch):
        logits = module(batch["tokens"][:, :-1]).astype(mx.float32)
        return (nn.losses.cross_entropy(logits, batch["tokens"][:, 1:]) * batch["loss_mask"][:, 1:]).sum()

    _, ours = nn.value_and_grad(tuned.module, summed_loss(tuned.family))(
        tuned.module, batch, supervised_positions(batch)
    )
    _, plain = nn.value_and_grad(tuned.module, over_all_logits)(tuned.module, batch)
    plain = dict(tree_flatten(plain))
    for name, gradient in tree_flatten(ours):
        whole = mx.linalg.norm(plain[name].reshape(-1))
        assert mx.linalg.norm((gradient - plain[name]).reshape(-1)) < roundings(tuned) * whole, name


@pytest.mark.float32
def test_its_gradient_is_the_derivative_of_the_loss(tuned, batch):
    """Central differences along a random direction through all adapters."""
    loss, positions = summed_loss(tuned.family), supervised_positions(batch)
    start = tuned.module.trainable_parameters()
    mx.random.seed(0)
    direction = tree_map(lambda array: mx.random.normal(array.shape), start)
    _, gradient = nn.value_and_grad(tuned.module, loss)(tuned.module, batch, positions)
    derivative = sum(
        (a * b).sum().item() for (_, a), (_, b) in zip(tree_flatten(gradient), tree_flatten(direction), strict=True)
    )

    def at(distance):
        tuned.module.update(tree_map(lambda value, step: value + distance * step, start, direction))
        return loss(tuned.module, batch, positions).item()

    assert (at(1e-3) - at(-1e-3)) / 2e-3 == pytest.approx(derivative, rel=2e-2)


def test_padding_changes_nothing(tuned, rows):
    encoded = encode_rows(rows[:4], tuned.loaded, max_seq_length=128).rows
    losses = []
    for width in (65, 97):
        batch = tuned.family.collate(encoded, width)
        losses.append(summed_loss(tuned.family)(tuned.module, batch, supervised_positions(batch)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# A few states at a time


def in_pieces(rows=8):
    return replace(forms_for(), logit_bytes=1, logit_rows=rows)


@pytest.mark.parametrize("at_once", [1, 7, 8, 1000])
def test_pieces_give_the_loss_and_the_gradients_of_all_logits_at_once(tuned, batch, at_once):
    few, positions = in_pieces(at_once), supervised_positions(batch)
    nats, plain = nn.value_and_grad(tuned.module, summed_loss(tuned.family))(tuned.module, batch, positions)
    found, ours = nn.value_and_grad(tuned.module, summed_loss(tuned.family, few))(tuned.module, batch, positions)
    assert found.item() == pytest.approx(nats.item(), rel=1e-6)
    assert measured_nats(tuned.family, tuned.module, batch, positions, few) == pytest.approx(nats.item(), rel=1e-6)
    plain = dict(tree_flatten(plain))
    for name, gradient in tree_flatten(ours):
        distance = mx.linalg.norm((gradient - plain[name]).reshape(-1)) / mx.linalg.norm(plain[name].reshape(-1))
        assert distance.item() < 1e-5, name


HEADS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "4-bit": {"load_in_4bit": True},
    "trained embedding": {"modules_to_save": ["embed_tokens"]},
    "adapted head": {"tie_word_embeddings": False, "target_modules": ["q_proj", "lm_head"]},
    "bfloat16": {"dtype": "bfloat16"},
    "full": {"full_finetuning": True},
}


@pytest.mark.parametrize("kind", HEADS)
def test_every_kind_of_head_gives_the_gradients_of_the_plain_loss(tmp_path, rows, kind):
    choice = dict(HEADS[kind])
    tie = choice.pop("tie_word_embeddings", True)
    adapt = {name: choice.pop(name) for name in ("modules_to_save", "target_modules") if name in choice}
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, tie_word_embeddings=tie), **choice)
    if "full_finetuning" not in choice:
        FastModel.get_peft_model(model, r=4, **adapt)
    encoded = encode_rows(rows[:4], model.loaded, max_seq_length=128).rows
    batch = model.family.collate(encoded, width=65)

    def over_all_logits(module, batch, _):
        logits = module(batch["tokens"][:, :-1]).astype(mx.float32)
        return (nn.losses.cross_entropy(logits, batch["tokens"][:, 1:]) * batch["loss_mask"][:, 1:]).sum()

    positions = supervised_positions(batch)
    nats, plain = nn.value_and_grad(model.module, over_all_logits)(model.module, batch, positions)
    loss = summed_loss(model.family, in_pieces())
    found, ours = nn.value_and_grad(model.module, loss)(model.module, batch, positions)
    assert found.item() == pytest.approx(nats.item(), rel=1e-5)
    plain = dict(tree_flatten(plain))
    for name, gradient in tree_flatten(ours):
        distance = mx.linalg.norm((gradient - plain[name]).reshape(-1)) / (
            mx.linalg.norm(plain[name].reshape(-1)) + 1e-6
        )
        assert distance.item() < roundings(model), name


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.float32
def test_with_a_large_vocabulary_the_logits_are_never_whole(tmp_path, trained):
    """120 MB of logits in float32 are 360 with their gradient and what is between them."""
    folder = tiny_model_folder(tmp_path)
    model, _ = FastModel.from_pretrained(folder)
    wide = nn.Embedding(60_000, 64)
    model.module["model"]["embed_tokens"] = wide
    model.module.freeze()
    FastModel.get_peft_model(model, r=4, modules_to_save=["embed_tokens"] if trained else None)
    tokens = mx.array(np.random.default_rng(0).integers(0, 60_000, (1, 513)))
    batch = {"tokens": tokens, "loss_mask": mx.ones(tokens.shape, mx.bool_)}
    positions = supervised_positions(batch)
    peaks = {}
    for name, size in (("whole", 10**9), ("pieces", 8_000_000)):
        loss = summed_loss(model.family, replace(forms_for(), logit_bytes=size, logit_rows=16))
        step = nn.value_and_grad(model.module, loss)
        peaks[name] = peak_bytes(partial(step, model.module, batch, positions))
    assert peaks["whole"] > 300e6
    assert peaks["pieces"] < 0.45 * peaks["whole"]
