"""SmolLM2-135M in float32 against TRL under torch: token ids, log-probabilities, losses and every adapter's gradient.

torch computes in float64: in float32 TRL's own ORPO differs from itself by 5e-5, more than ours does.
"""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_map_with_path
from transformers import AutoTokenizer

from tests.objectives.test_trl_losses import PLAIN
from tunebook import FastModel
from tunebook.config import LoraConfig
from tunebook.data.encoded import sequences_of
from tunebook.models.tensors import flat
from tunebook.objectives import DPO, KTO, ORPO
from tunebook.objectives.reference import Reference, with_what_is_known
from tunebook.objectives.token_logps import TokenLogps, token_logps
from tunebook.parity.references import torch_model, trl_losses, trl_rows
from tunebook.tokens.collation import collated
from tunebook.tokens.encoding import encode_rows

pytestmark = [pytest.mark.real_model, pytest.mark.float32]

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LORA = LoraConfig(r=4, lora_alpha=8)
# Of each number by its own size; of a gradient by that of the largest among all adapters.
close = partial(pytest.approx, rel=1e-5, abs=1e-5)


def said(role, content):
    return {"role": role, "content": content}


PAIRS = [
    {
        "prompt": [said("user", "What color is the sky?")],
        "chosen": [said("assistant", "Blue.")],
        "rejected": [said("assistant", "It is green, and it has been so since I can remember.")],
    },
    {
        "prompt": [said("system", "Be brief."), said("user", "Who?"), said("assistant", "I."), said("user", "Why?")],
        "chosen": [said("assistant", "Somebody has to,\nand nobody else was there.")],
        "rejected": [said("assistant", "No.")],
    },
]
SIDES = [(PAIRS[0], "chosen"), (PAIRS[1], "chosen"), (PAIRS[0], "rejected")]
JUDGED = [{"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"} for row, side in SIDES]


@pytest.fixture(scope="module")
def model():
    """With adapters that all act, and the reference it began with."""
    made, _ = FastModel.from_pretrained(MODEL, max_seq_length=128, dtype="float32")
    FastModel.get_peft_model(made, r=LORA.r, lora_alpha=LORA.lora_alpha)
    reference = Reference(made.module, DPO())
    reference.settle()
    mx.random.seed(5)
    made.module.update(
        tree_map_with_path(
            lambda path, value: mx.random.normal(value.shape) * 0.02 if path.endswith("lora_b") else value,
            made.module.trainable_parameters(),
        )
    )
    made.module.eval()
    return made, reference


@pytest.fixture(scope="module")
def theirs(model):
    """The same under torch, in float64."""
    module = torch_model.open_with_adapters(model[0].loaded.folder, LORA)
    arrays = {name: np.array(value) for name, value in flat(model[0].module.trainable_parameters()).items()}
    torch_model.put(module, arrays)
    return trl_losses.with_head(module.double())


def encoded(model, objective):
    rows = PAIRS if objective.rows == "pairs" else JUDGED
    return encode_rows(rows, model.loaded, max_seq_length=128, answers=objective.rows).rows


def sides(row):
    return [(side.tokens.tolist(), side.loss_mask.astype(int).tolist()) for side in row.sequences]


def test_the_token_ids_of_prompts_and_answers_are_trls(model):
    loaded = model[0].loaded
    tokenizer = AutoTokenizer.from_pretrained(loaded.folder)
    pairs, judged = (encoded(model[0], objective) for objective in (DPO(), KTO()))
    assert [sides(row) for row in pairs] == trl_rows.pairs(PAIRS, tokenizer, 128)
    assert [sides(row) for row in judged] == [row for row, _ in trl_rows.labelled(JUDGED, tokenizer, 128, 3)]
    assert all(side.tokens[-2] == tokenizer.eos_token_id for side in sequences_of(pairs))  # a line break follows


def known_batch(model, reference, objective, rows):
    batch = collated(model.family, rows, 128)[0] | objective.known_of_step(rows)
    return with_what_is_known(objective, batch, model.family, model.module, reference)


OBJECTIVES = {"DPO": DPO(), "ORPO": ORPO(), "KTO": KTO(undesirable_weight=1.5)}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_loss_and_every_gradient_are_trls(model, theirs, kind):
    objective, (ours, reference) = OBJECTIVES[kind], model
    rows = encoded(ours, objective)
    batch = known_batch(ours, reference, objective, rows)
    step = nn.value_and_grad(ours.module, objective.summed(ours.family))
    (total, sums), gradients = step(ours.module, batch, objective.positions(batch))
    loss, logged = trl_losses.loss_of(objective, theirs, rows)
    loss.backward()
    there = torch_model.gradients_held(theirs)
    theirs.zero_grad()
    assert total.item() / objective.units(batch) == close(loss.item())
    metrics = objective.metrics(sums)
    # A mean of differences between sums of a hundred nats, of which float32 knows each to 8e-6.
    assert metrics.pop("kl", 0.0) == pytest.approx(logged.get("kl", 0.0), abs=5e-5)
    assert metrics == close({name: logged[name] for name in metrics})
    here = {name: np.array(gradient) / objective.units(batch) for name, gradient in flat(gradients).items()}
    assert here.keys() == there.keys()
    largest = max(np.abs(gradient).max() for gradient in there.values())
    off = {name: np.abs(here[name] - gradient).max() / largest for name, gradient in there.items()}
    assert max(off.values()) < 1e-5, max(off, key=off.get)


@pytest.fixture(scope="module")
def said_of_pairs(model, theirs):
    """(rows, our batch and log-probabilities, theirs), of the model and of its reference."""
    (ours, reference), objective = model, DPO()
    rows = encoded(ours, objective)
    batch = known_batch(ours, reference, objective, rows)
    found = token_logps(ours.family, squares=True, differentiable=False)(ours.module, batch, objective.positions(batch))
    inputs = trl_losses.batch_of(objective, rows)
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    with torch.no_grad():
        there = theirs(**inputs, labels=labels, fused_lm_head=True)
    said = torch.tensor(trl_losses.reference_logps(objective, theirs, rows, as_it_is=False))
    return rows, batch, found, there, said


def test_what_the_model_and_its_reference_say_of_both_answers_is_what_they_say_under_torch(said_of_pairs):
    _, batch, found, there, said = said_of_pairs
    width = there.log_probs.shape[1]
    np.testing.assert_allclose(found.logps[:, :width], there.log_probs, rtol=1e-5, atol=1e-5)
    sums = DPO().row_logps(found.logps, batch)
    np.testing.assert_allclose(sums, there.log_probs.sum(dim=1), rtol=1e-5)
    np.testing.assert_allclose(batch["reference_logps"], said, rtol=1e-5)


SMOOTHED = {"exo_pair": 0.1, "robust": 0.1, "aot": 0.2}
DPOS = {name: DPO(loss_type=name, label_smoothing=SMOOTHED.get(name, 0.0)) for name in [*PLAIN, "exo_pair"]}
DPOS |= {"WPO": DPO(use_weighting=True), "js": DPO(f_divergence_type="js_divergence")}


@pytest.mark.parametrize("kind", DPOS)
def test_each_loss_of_what_they_say_is_trls(said_of_pairs, kind):
    rows, batch, found, there, said = said_of_pairs
    objective = DPOS[kind]
    total, _ = objective.loss(TokenLogps(found.logps, found.log_squares), batch)
    chosen, rejected = said.chunk(2)
    known = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    squares = there.log_sum_sq_probs
    answered = trl_losses.as_of_head(there.log_probs, squares)
    loss, _ = trl_losses.loss_of(objective, lambda **_: answered, rows, known)
    assert total.item() / objective.units(batch) == pytest.approx(loss.item(), rel=1e-5, abs=1e-5)
