"""The reference of an objective: the model as it was, in the same memory."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map, tree_map_with_path

from tests.objectives.test_token_logps import batch_for
from tunebook import FastModel
from tunebook.models.tensors import flat
from tunebook.objectives import CPO, DPO, KTO
from tunebook.objectives.reference import Reference, with_what_is_known

pytestmark = pytest.mark.float32


def changed(module):
    """Move everything that is trained, as steps would."""
    module.update(tree_map(lambda value: value + 0.05, module.trainable_parameters()))


def said(model, batch, objective):
    """(B,) by the objective's own sums, of the model as it is."""
    logps = model.module(batch["tokens"][:, :-1])
    logps = mx.take_along_axis(
        logps - mx.logsumexp(logps, axis=-1, keepdims=True), batch["tokens"][:, 1:, None], axis=-1
    )[..., 0]
    return np.array(objective.row_logps(logps, batch))


def known(model, objective, reference, batch):
    return with_what_is_known(objective, batch, model.family, model.module, reference)


def without_known(model, rows):
    batch = batch_for(model, rows)
    del batch["reference_logps"]
    return batch


def reference_of(model):
    reference = Reference(model.module, DPO())
    reference.settle()
    return reference


KINDS = {
    "fresh adapters": lambda model: FastModel.get_peft_model(model, r=4),
    "fresh magnitudes": lambda model: FastModel.get_peft_model(model, r=4, use_dora=True),
    "adapters and a table": lambda model: FastModel.get_peft_model(model, r=4, modules_to_save=["embed_tokens"]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tuned_before", [False, True])
def test_the_reference_is_the_model_as_it_was_and_the_model_is_left_as_it_is(model, rows, kind, tuned_before):
    KINDS[kind](model)
    if tuned_before:
        changed(model.module)
    objective, batch = DPO(ld_alpha=0.5), without_known(model, rows)
    expected = said(model, batch, objective)
    reference = reference_of(model)
    assert (reference.kept is None) == (kind == "fresh adapters" and not tuned_before)
    changed(model.module)
    trained, now = flat(model.module.trainable_parameters()), said(model, batch, objective)
    found = known(model, objective, reference, batch)
    np.testing.assert_allclose(found["reference_logps"], expected, rtol=1e-5)
    assert not np.allclose(now, expected, rtol=1e-5)
    np.testing.assert_array_equal(said(model, batch, objective), now)
    left = flat(model.module.trainable_parameters())
    assert all(value is left[name] for name, value in trained.items())
    assert set(batch) | {"reference_logps"} == set(found)


def test_a_model_that_is_frozen_after_its_run_is_left_as_it_is_too(tuned, rows):
    batch, reference = without_known(tuned, rows), reference_of(tuned)
    changed(tuned.module)
    now = flat(tuned.module.parameters())
    tuned.module.freeze()
    known(tuned, DPO(), reference, batch)
    left = flat(tuned.module.parameters())
    assert all(value is left[name] for name, value in now.items())


def test_a_reference_that_is_opened_again_is_the_same(tuned, rows):
    batch, first = without_known(tuned, rows), reference_of(tuned)
    expected = known(tuned, DPO(), first, batch)["reference_logps"]
    changed(tuned.module)
    again = Reference(tuned.module, DPO())
    again.take_up(dict(first.kept))
    np.testing.assert_array_equal(known(tuned, DPO(), again, batch)["reference_logps"], expected)


def test_the_reference_is_asked_with_dropout_off_and_training_goes_on_with_it_on(model, rows):
    FastModel.get_peft_model(model, r=4, lora_dropout=0.5)
    model.module.update(
        tree_map_with_path(
            lambda path, value: value + 0.1 if path.endswith("lora_b") else value, model.module.trainable_parameters()
        )
    )
    batch, reference = without_known(model, rows), reference_of(model)
    model.module.train()
    found = [np.array(known(model, DPO(), reference, batch)["reference_logps"]) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert model.module.training


def test_what_a_batch_brings_is_not_made_again_and_what_is_not_needed_is_not_made(tuned, rows):
    batch = batch_for(tuned, rows)
    reference = reference_of(tuned)
    assert known(tuned, DPO(), reference, batch)["reference_logps"] is batch["reference_logps"]
    assert "reference_logps" not in known(tuned, CPO(), reference, without_known(tuned, rows))


def test_the_kl_is_the_mean_log_ratio_of_mismatched_answers_and_never_below_zero(tuned, rows):
    objective = KTO()
    batch, reference = without_known(tuned, rows), reference_of(tuned)
    batch |= {"labels": mx.array([True, False, True, False]), "mismatched": without_known(tuned, rows[4:])}
    before = said(tuned, batch["mismatched"], objective)
    changed(tuned.module)
    ratio = float((said(tuned, batch["mismatched"], objective) - before).mean())
    found = known(tuned, objective, reference, batch)
    assert found["kl"].item() == pytest.approx(max(ratio, 0.0), rel=1e-4)
    assert "mismatched" not in found
    opposite = {**batch["mismatched"], "reference_logps": mx.array(before) + 2 * ratio}
    theirs = known(tuned, objective, reference, {**batch, "mismatched": opposite})["kl"].item()
    assert sorted([found["kl"].item(), theirs])[0] == 0.0
    assert max(found["kl"].item(), theirs) == pytest.approx(abs(ratio), rel=1e-4)
