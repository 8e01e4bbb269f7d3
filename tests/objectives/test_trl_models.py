"""Whole objectives on tiny models against TRL's trainers under torch: log-probabilities, loss and LoRA gradients."""

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
from tunebook.models.tensors import flat
from tunebook.objectives import CPO, DPO, KTO, ORPO, SimPO
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


def ours_of(model, reference, objective, made):
    """(loss, gradients by name, metrics, log-probabilities by row)."""
    batch = {name: mx.array(value) for name, value in made.items() if name != "mismatched"}
    if "mismatched" in made:
        batch["mismatched"] = {name: mx.array(value) for name, value in made["mismatched"].items()}
    batch = with_what_is_known(objective, batch, model.family, model.module, reference)
    step = nn.value_and_grad(model.module, objective.summed(model.family))
    model.module.eval()
    (total, sums), gradients = step(model.module, batch, objective.positions(batch))
    units = objective.units(batch)
    found = {name: np.array(gradient) / units for name, gradient in flat(gradients).items()}
    return total.item() / units, found, objective.metrics(sums), batch


def assert_same(ours, theirs, module):
    loss, metrics = theirs
    assert ours[0] == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    assert ours[2] == pytest.approx({name: metrics[name] for name in ours[2]}, rel=1e-4, abs=1e-4)
    module.zero_grad()
    loss.backward()
    for name, parameter in torch_model.adapters(module).items():
        gradient = parameter.grad.numpy()
        gradient = gradient.T if name.endswith((".lora_a", ".lora_b")) else gradient
        np.testing.assert_allclose(
            ours[1][name], gradient, atol=2e-5 * np.abs(gradient).max() + 1e-9, err_msg=name
        )  # float32, of six layers


DPOS = [
    DPO(),
    DPO(loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0]),
    DPO(loss_type="ipo", beta=0.5),
    DPO(loss_type="aot", label_smoothing=0.1),
    DPO(ld_alpha=0.4, f_divergence_type="js_divergence"),
    DPO(use_weighting=True),
]


@pytest.mark.parametrize("objective", DPOS, ids=range(len(DPOS)))
def test_dpo_with_its_reference_by_adapters_off_is_trls(both, objective):
    model, reference, theirs = both
    made = batch_of_rows(theirs.config.get_text_config().vocab_size, [3, 7, 5] * 2)
    ours = ours_of(model, reference, objective, made)
    trainer, inputs = trl_losses.trainer_for(objective, theirs, False), trl_judge.ids_and_masks(made)
    with torch_model.quiet():
        loss = trainer._compute_loss(theirs, inputs, False)
        halves = trainer.compute_ref_log_probs(theirs, inputs)
    np.testing.assert_allclose(ours[3]["reference_logps"], torch.cat(halves).numpy(), rtol=1e-5, atol=1e-5)
    assert_same(ours, (loss, trl_losses.logged(trainer)), theirs)


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_kto_with_its_kl_is_trls(both, loss_type):
    model, reference, theirs = both
    objective = KTO(loss_type=loss_type, desirable_weight=1.5)
    vocabulary = theirs.config.get_text_config().vocab_size
    made = batch_of_rows(vocabulary, [3, 7, 5, 4], 1) | {"labels": np.array([True, False, False, True])}
    made["mismatched"] = batch_of_rows(vocabulary, [3, 7, 5, 4], 2)
    ours = ours_of(model, reference, objective, made)
    trainer = trl_losses.trainer_for(objective, theirs, False)
    inputs = trl_judge.ids_and_masks(made) | {"label": torch.tensor(made["labels"])}
    inputs |= {"KL_" + name: value for name, value in trl_judge.ids_and_masks(made["mismatched"]).items()}
    with torch_model.quiet():
        loss = trainer._compute_loss(theirs, inputs, False)
    assert_same(ours, (loss, trl_losses.logged(trainer)), theirs)


@pytest.mark.parametrize("objective", [ORPO(), CPO(), SimPO(beta=2.0)], ids=["ORPO", "CPO", "SimPO"])
def test_what_asks_no_reference_is_trls(both, objective):
    model, reference, theirs = both
    made = batch_of_rows(theirs.config.get_text_config().vocab_size, [3, 7, 5] * 2, 3)
    trainer, batch = trl_judge.reference_free(objective, made)
    assert_same(ours_of(model, reference, objective, made), trainer.get_batch_loss_metrics(theirs, batch), theirs)
