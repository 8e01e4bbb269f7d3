"""Twenty steps of a preference run against TRL's losses under torch, optimizer, schedule and clipping too."""

import numpy as np
import pytest
import torch

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.config import LoraConfig
from tunebook.models.tensors import flat
from tunebook.objectives import CPO, DPO, KTO, ORPO, SimPO
from tunebook.parity.references import torch_model, torch_optim, trl_losses
from tunebook.tokens.batch_order import windows
from tunebook.tokens.stored_rows import lengths_of

pytestmark = pytest.mark.float32

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "then", "sleeps", "in", "the", "sun")
TARGETS = ("q_proj", "v_proj", "down_proj")


def text(numbers, longest):
    return " ".join(numbers.choice(WORDS, numbers.integers(1, longest)))


def rows_for(objective):
    numbers = np.random.default_rng(4)
    pairs = [
        {"prompt": text(numbers, 6) + "?", "chosen": " " + text(numbers, 9), "rejected": " not " + text(numbers, 12)}
        for _ in range(24)
    ]
    if objective.rows == "pairs":
        return pairs
    sides = ["chosen" if index % 2 else "rejected" for index in range(len(pairs))]
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row, side in zip(pairs, sides, strict=True)
    ]


TRLS_NAMES = {DPO: ("ref_chosen_logps", "ref_rejected_logps"), KTO: ("ref_logps", "ref_KL_logps")}


def asked_by_trl(objective, theirs, rows, order):
    """The number of each row -> what TRL's reference says of it, by its names, in the batches of the first epoch."""
    found = {}
    while len(found) < len(rows):
        for indices in next(order):
            batch = [rows[index] for index in indices]
            trainer = trl_losses.trainer_for(objective, theirs, False)
            logps = trainer.compute_ref_log_probs(theirs, trl_losses.batch_of(objective, batch))
            for place, row in enumerate(batch):
                found[row.number] = {
                    name: of[place : place + 1] for name, of in zip(TRLS_NAMES[type(objective)], logps, strict=True)
                }
    return found


def of_batch(asked, batch):
    """`asked` of the rows of a batch."""
    return {name: torch.cat([asked[row.number][name] for row in batch]) for name in asked[batch[0].number]}


# (objective, architecture, micro-batches of a step): each kind of loss, with every model and every way to split.
RUNS = {
    "DPO": (DPO(beta=0.3), "llama", 2),
    "DPO, mixed": (DPO(loss_type=["sigmoid_norm", "apo_zero"], loss_weights=[1.0, 0.5], beta=0.5), "llama", 2),
    "DPO, ipo": (DPO(loss_type="ipo", beta=0.5), "qwen3", 1),
    "DPO, smoothed": (DPO(loss_type="robust", label_smoothing=0.2, beta=0.5), "gemma3", 2),
    "ORPO": (ORPO(beta=0.5), "llama", 2),
    "ORPO, whole": (ORPO(beta=0.5), "gemma3", 1),
    "CPO": (CPO(), "llama", 2),
    "SimPO": (SimPO(beta=2.0), "qwen3", 2),
    "KTO": (KTO(beta=0.3, undesirable_weight=1.2), "llama", 2),
    "KTO, without a KL": (KTO(loss_type="apo_zero_unpaired"), "gemma3", 1),
}


@pytest.mark.parametrize("kind", RUNS)
def test_twenty_steps_give_trls_losses_and_adapters(tmp_path, kind):
    objective, architecture, micro_batches = RUNS[kind]
    folder = tiny_model_folder(tmp_path / "model", architecture)
    config = TrainingConfig(
        per_device_train_batch_size=3,
        gradient_accumulation_steps=micro_batches,
        max_steps=20,
        learning_rate=3e-3,
        warmup_steps=3,
        dataset_order="sequential" if objective.asks_beforehand else "shuffle",  # TRL takes no other for KTO
        hold_out=0,
        output_dir=str(tmp_path / "out"),
    )
    model, _ = FastModel.from_pretrained(folder)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, target_modules=list(TARGETS))
    start = {name: np.array(value) for name, value in flat(model.module.trainable_parameters()).items()}
    trainer = Trainer(model, train_dataset=rows_for(objective), args=config, objective=objective)
    ours = []
    trainer.add_step_callback(lambda step, total, loss, *_: ours.append(loss))
    trainer.train()

    theirs = torch_model.open_with_adapters(folder, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    torch_model.put(theirs, start)
    trl_losses.with_head(theirs)
    named = torch_model.adapters(theirs)
    optimizer, rows, curve = torch_optim.Reference(named, config), trainer.train_rows, []
    order, asked = windows(lengths_of(rows), config), None
    if objective.asks_beforehand:
        asked = asked_by_trl(objective, theirs, rows, windows(lengths_of(rows), config))
    for window, rate in zip(order, torch_optim.rates(config, 20), strict=False):
        batches = [[rows[index] for index in batch] for batch in window]
        if type(objective) in (ORPO, CPO):  # a mean over tokens is over those of a step, however it is split
            batches = [[row for batch in batches for row in batch]]
        losses = [
            trl_losses.loss_of(objective, theirs, batch, of_batch(asked, batch) if asked else None)[0] / len(batches)
            for batch in batches
        ]
        sum(losses).backward()
        torch_optim.clip(list(named.values()), config)
        optimizer.step(rate)
        theirs.zero_grad()
        curve.append(sum(loss.item() for loss in losses))
    np.testing.assert_allclose(ours, curve, atol=1e-4)
    assert abs(curve[-1] - curve[0]) > 0.02
    ended = flat(model.module.trainable_parameters())
    for name, parameter in named.items():
        value = parameter.detach().numpy()
        np.testing.assert_allclose(np.array(ended[name]), value.T, atol=1e-4, err_msg=name)
