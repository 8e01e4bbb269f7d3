"""Whole objectives on tiny models against TRL's trainers under torch: log-probabilities, loss and LoRA gradients.

torch computes in float64 where it can, so that what is left of a difference is ours.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_map_with_path

from tests.makers.tiny import tiny_model_folder
from tests.objectives import trl_judge
from tunebook import FastModel
from tunebook.config import LoraConfig
from tunebook.data.encoded import Encoded
from tunebook.models.tensors import flat
from tunebook.objectives import CPO, DPO, KTO, ORPO, AlphaPO, SimPO
from tunebook.objectives.base import added
from tunebook.objectives.dpo_losses import LOSSES
from tunebook.objectives.reference import Reference, with_what_is_known
from tunebook.parity.references import torch_model, trl_losses

pytestmark = pytest.mark.float32

TARGETS = ("q_proj", "v_proj", "down_proj")


@pytest.fixture(scope="module", params=["llama", "qwen3", "gemma3"])
def both(request, tmp_path_factory):
    """(ours, theirs) of the same weights and adapters, ours with the reference it began with."""
    folder = tiny_model_folder(tmp_path_factory.mktemp("both") / request.param, request.param)
    model, _ = FastModel.from_pretrained(folder)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, target_modules=list(TARGETS))
    reference = Reference(model.module, DPO())
    reference.settle()
    mx.random.seed(5)
    model.module.update(
        tree_map_with_path(
            lambda path, value: mx.random.normal(value.shape) * 0.05 if path.endswith("lora_b") else value,
            model.module.trainable_parameters(),
        )
    )
    theirs = torch_model.open_with_adapters(folder, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    arrays = {name: np.array(value) for name, value in flat(model.module.trainable_parameters()).items()}
    torch_model.put(theirs, arrays)
    if request.param != "gemma3":  # whose masks are not a number in float64
        theirs = theirs.double()
    return model, reference, trl_losses.with_head(theirs)


def batch_of_rows(vocabulary, prompts, seed=0):
    """Ragged rows behind prompts of these lengths; the tokens of a pair's prompts are the same."""
    numbers = np.random.default_rng(seed)
    rows, width = len(prompts), 33
    lengths = np.array(prompts) + numbers.integers(2, 20, rows)
    tokens = numbers.integers(3, vocabulary, (rows, width)).astype(np.int32)
    tokens[rows // 2 :, : max(prompts)] = tokens[: rows // 2, : max(prompts)]
    place = np.arange(width)
    mask = (place >= np.array(prompts)[:, None]) & (place < lengths[:, None])
    tokens[place >= lengths[:, None]] = 0
    return {"tokens": tokens, "loss_mask": mask, "lengths": lengths.astype(np.int32)}


def ours_of(model, reference, objective, made, batches=((0, 1, 2, 3),)):
    """(loss, gradients by name, metrics, the last micro-batch) of a step; `batches` hold its pairs, or its rows."""
    known = objective.known_of_step(rows_of(made)) if objective.rows == "pairs" else {}
    step = nn.value_and_grad(model.module, objective.summed(model.family))
    model.module.eval()
    total, units, sums, summed = 0.0, 0, {}, {}
    for numbers in batches:
        batch = with_what_is_known(objective, batch_of(made, numbers) | known, model.family, model.module, reference)
        (loss, more), gradients = step(model.module, batch, objective.positions(batch))
        total, units, sums = total + loss.item(), units + objective.units(batch), added(sums, more)
        for name, gradient in flat(gradients).items():
            summed[name] = summed.get(name, 0.0) + np.array(gradient)
    means = {name: gradient / units for name, gradient in summed.items()}
    return total / units, means, objective.metrics(sums), batch


def batch_of(made, numbers):
    """Some of what is made up, as a batch: pairs of rows, or rows that have labels."""
    count = len(made["tokens"]) if "labels" in made else len(made["tokens"]) // 2
    rows = [number for number in numbers if number < count]
    if "labels" not in made:
        rows += [count + number for number in rows]
    batch = {name: mx.array(value[rows]) for name, value in made.items() if name != "mismatched"}
    if "mismatched" in made:
        batch["mismatched"] = {name: mx.array(value[rows]) for name, value in made["mismatched"].items()}
    return batch


def rows_of(made):
    """Pairs that are made up, as rows."""
    pairs, lengths = len(made["tokens"]) // 2, made["lengths"]
    return [
        Encoded(
            tokens=np.concatenate([made["tokens"][row][: lengths[row]] for row in (number, pairs + number)]),
            loss_mask=np.concatenate([made["loss_mask"][row][: lengths[row]] for row in (number, pairs + number)]),
            second=int(lengths[number]),
        )
        for number in range(pairs)
    ]


def assert_all_the_same(model, reference, objective, made, theirs, module, of_largest=1e-5):
    """As one micro-batch, and, where its rows are not coupled, as two."""
    whole = ours_of(model, reference, objective, made)
    splits = [] if objective.couples_rows else [ours_of(model, reference, objective, made, ((0, 1), (2, 3)))]
    loss, metrics = theirs
    module.zero_grad()
    loss.backward()
    for ours in (whole, *splits):
        assert_same(ours, (loss, metrics), module, of_largest)
    return whole[3]


def assert_same(ours, theirs, module, of_largest):
    """To 1e-5 of the loss, and to a share of the largest gradient among all adapters.

    What is logged comes of differences between sums of 100 nats, of which float32 knows 1e-5.
    """
    loss, metrics = theirs
    assert ours[0] == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    assert ours[2] == pytest.approx({name: metrics[name] for name in ours[2]}, rel=1e-5, abs=3e-5)
    gradients = torch_model.gradients_held(module)
    atol = of_largest * max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        np.testing.assert_allclose(ours[1][name], gradient, rtol=0, atol=atol, err_msg=name)


SMOOTHED = {"exo_pair": 0.1, "robust": 0.2, "aot": 0.1, "aot_unpaired": 0.1}
DPOS = {name: DPO(loss_type=name, beta=0.5, label_smoothing=SMOOTHED.get(name, 0.0)) for name in LOSSES}
# Its logits are divided by 0.05 otherwise, and so is what float32 rounds of them.
DPOS["discopop"] = DPO(loss_type="discopop", discopop_tau=0.5)
DPOS |= {name: DPO(f_divergence_type=name) for name in ("forward_kl", "js_divergence", "alpha_divergence")}
# Each row's gradient is multiplied by e to a difference between sums of 100 nats.
OF_LARGEST = {"forward_kl": 3e-5}
DPOS |= {
    "mixed": DPO(loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0]),
    "LD-DPO": DPO(ld_alpha=0.4, f_divergence_type="js_divergence"),
    "WPO": DPO(use_weighting=True),
}
ALONE = {
    "ORPO": ORPO(),
    "CPO": CPO(label_smoothing=0.1),
    "CPO, hinge": CPO(loss_type="hinge"),
    "CPO, ipo": CPO(loss_type="ipo", cpo_alpha=0.5),
    "SimPO": SimPO(beta=2.0, label_smoothing=0.1),
    "AlphaPO": AlphaPO(alpha=0.25, beta=2.0),
}


@pytest.mark.parametrize("kind", DPOS)
def test_dpo_with_its_reference_by_adapters_off_is_trls(both, kind):
    objective, (model, reference, theirs) = DPOS[kind], both
    made = batch_of_rows(theirs.config.get_text_config().vocab_size, [3, 7, 5] * 2)
    trainer, inputs = trl_losses.trainer_for(objective, theirs, False), trl_judge.ids_and_masks(made)
    with torch_model.quiet():
        loss = trainer._compute_loss(theirs, inputs, False)
        halves = trainer.compute_ref_log_probs(theirs, inputs)
    of_trl, bound = (loss, trl_losses.logged(trainer)), OF_LARGEST.get(kind, 1e-5)
    batch = assert_all_the_same(model, reference, objective, made, of_trl, theirs, bound)
    np.testing.assert_allclose(batch["reference_logps"], torch.cat(halves).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_kto_with_its_kl_is_trls(both, loss_type):
    model, reference, theirs = both
    objective = KTO(loss_type=loss_type, desirable_weight=1.5)
    vocabulary = theirs.config.get_text_config().vocab_size
    made = batch_of_rows(vocabulary, [3, 7, 5, 4], 1) | {"labels": np.array([True, False, False, True])}
    made["mismatched"] = batch_of_rows(vocabulary, [3, 7, 5, 4], 2)
    trainer = trl_losses.trainer_for(objective, theirs, False)
    inputs = trl_judge.ids_and_masks(made) | {"label": torch.tensor(made["labels"])}
    inputs |= {"KL_" + name: value for name, value in trl_judge.ids_and_masks(made["mismatched"]).items()}
    with torch_model.quiet():
        loss = trainer._compute_loss(theirs, inputs, False)
    assert_all_the_same(model, reference, objective, made, (loss, trl_losses.logged(trainer)), theirs)


@pytest.mark.parametrize("kind", ALONE)
def test_what_asks_no_reference_is_trls(both, kind):
    objective, (model, reference, theirs) = ALONE[kind], both
    made = batch_of_rows(theirs.config.get_text_config().vocab_size, [3, 7, 5] * 2, 3)
    trainer, batch = trl_judge.reference_free(objective, made)
    found = trainer.get_batch_loss_metrics(theirs, batch)
    assert_all_the_same(model, reference, objective, made, found, theirs)
