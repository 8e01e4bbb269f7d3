"""Rows whose beginnings were read once have the states they have when read whole, or it is said why they are not."""

import mlx.core as mx
import numpy as np
import pytest

from tests.models.families.test_batched import ALONE, TOGETHER, made
from tunebook.data.encoded import Encoded
from tunebook.models.families.beginnings import Before, BehindCache

CARRIES = ("lfm2", "qwen3_5", "mamba")
APART = {"gemma2": "fails with rows that go on at unequal places", **dict.fromkeys(CARRIES, "carry state")}
KINDS = {**TOGETHER, **ALONE}


def texts(*lengths, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(3, 500, length, np.int32) for length in lengths]


def log_probs(model, rows, before=None):
    """(B, T-1, V) of rows of tokens, behind those `before` them."""
    made = [Encoded(tokens=row, loss_mask=np.ones(len(row), bool)) for row in rows]
    batch = model.family.collate(made, max(map(len, rows)))
    if before is not None:
        batch["before"] = before
    logits = model.family.head(model.module, model.family.hidden(model.module, batch)).astype(mx.float32)
    return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_behind_what_was_read_once_are_those_read_whole(kind, tmp_path):
    model = made(tmp_path, kind, KINDS[kind])
    model.module.eval()
    why = model.family.why_apart(model.module)
    if kind in APART:
        assert APART[kind] in why
        return
    assert why is None
    # Longer than the windows of 16 that some of them have, behind one another, of unequal length, and in another order.
    (first,), inner, rows, behind = texts(40), texts(22, 5, 31, seed=1), texts(4, 9, 2, 19, seed=2), [2, 0, 1, 0]
    one = Before(1).then(model.family.read(model.module, [first], Before(1))).of([0, 0, 0])
    found = log_probs(model, rows, one.then(model.family.read(model.module, inner, one)).of(behind))
    for row, place, ours in zip(rows, behind, found, strict=True):
        whole = np.concatenate([first, inner[place], row])
        theirs = log_probs(model, [whole])[0, -(len(row) - 1) :]
        np.testing.assert_allclose(ours[: len(row) - 1], theirs, atol=1e-4)


def test_a_model_with_other_masks_than_are_asked_for_is_found_by_the_probe(tmp_path, monkeypatch):
    model = made(tmp_path, "llama", {})
    monkeypatch.setattr(BehindCache, "make_mask", lambda *_, **__: None)
    assert "do not go on as they would" in model.family.why_apart(model.module)


def test_a_model_that_reads_images_says_that_its_rows_are_read_whole(vision_models):
    model = vision_models("qwen3_vl")
    assert "reads images" in model.family.why_apart(model.module)
