"""Twenty steps of a preference run against TRL's losses under torch, optimizer, schedule and clipping too."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.makers.tiny import tiny_model_folder
from tests.objectives import trl_judge
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.config import LoraConfig
from tunebook.models.tensors import flat
from tunebook.objectives import CPO, DPO, KTO, ORPO
from tunebook.parity.references import torch_model, torch_optim
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


def padded(sequences):
    """TRL's batch of (ids, mask of the answer)."""
    width = max(len(ids) for ids, _ in sequences)

    def rows(values):
        return torch.tensor([[*map(int, each), *[0] * (width - len(each))] for each in values])

    return {
        "input_ids": rows([ids for ids, _ in sequences]),
        "attention_mask": rows([np.ones(len(ids)) for ids, _ in sequences]),
        "completion_mask": rows([mask for _, mask in sequences]),
    }


def loss_of(objective, theirs, batch):
    """TRL's loss of one micro-batch of rows."""
    sides = [(side.tokens, side.loss_mask) for row in batch for side in row.sequences]
    if objective.rows == "pairs":
        sides = [*sides[::2], *sides[1::2]]
    settings = objective.identity()
    if type(objective) in (ORPO, CPO):
        width = max(len(ids) for ids, _ in sides)
        made = {
            "tokens": np.array([[*ids, *[0] * (width - len(ids))] for ids, _ in sides]),
            "loss_mask": np.array([[*mask, *[False] * (width - len(mask))] for _, mask in sides]),
            "lengths": np.array([len(ids) for ids, _ in sides]),
        }
        trainer, inputs = trl_judge.reference_free(objective, made)
        return trainer.get_batch_loss_metrics(theirs, inputs)[0]
    del settings["objective"], settings["loss_type"], settings["disable_dropout"]
    common = {"args": SimpleNamespace(gradient_checkpointing_kwargs=None), "model": theirs, "ref_model": None}
    if type(objective) is DPO:
        from trl.trainer.dpo_trainer import DPOTrainer

        trainer = trl_judge.trainer_of(DPOTrainer, loss_types=list(objective.loss_type), **common, **settings)
        return trainer._compute_loss(theirs, padded(sides), False)
    from trl.trainer.kto_trainer import KTOTrainer

    trainer = trl_judge.trainer_of(KTOTrainer, loss_type="kto", calculate_KL=True, **common, **settings)
    prompts = [ids[~mask] for ids, mask in sides]
    answers = [ids[mask] for ids, mask in [sides[-1], *sides[:-1]]]
    others = [
        (np.concatenate([prompt, answer]), np.arange(len(prompt) + len(answer)) >= len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    inputs = padded(sides) | {"KL_" + name: value for name, value in padded(others).items()}
    inputs["label"] = torch.tensor([row.label for row in batch])
    return trainer._compute_loss(theirs, inputs, False)


OBJECTIVES = {
    "DPO": DPO(beta=0.3),
    "DPO, mixed": DPO(loss_type=["sigmoid_norm", "apo_zero"], loss_weights=[1.0, 0.5], beta=0.5),
    "ORPO": ORPO(beta=0.5),
    "CPO": CPO(),
    "KTO": KTO(beta=0.3, undesirable_weight=1.2),
}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_twenty_steps_give_trls_losses_and_adapters(tmp_path, kind):
    from trl.trainer.utils import add_fused_lm_head

    objective, folder = OBJECTIVES[kind], tiny_model_folder(tmp_path / "model")
    config = TrainingConfig(
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        max_steps=20,
        learning_rate=3e-3,
        warmup_steps=3,
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
    if objective.needs_reference:
        add_fused_lm_head(theirs.get_base_model(), outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    named = torch_model.adapters(theirs)
    optimizer, rows, curve = torch_optim.Reference(named, config), trainer.train_rows, []
    order = windows(lengths_of(rows), config)
    for window, rate in zip(order, torch_optim.rates(config, 20), strict=False):
        batches = [[rows[index] for index in batch] for batch in window]
        if type(objective) in (ORPO, CPO):  # a mean over tokens is over those of a step, however it is split
            batches = [[row for batch in batches for row in batch]]
        losses = [loss_of(objective, theirs, batch) / len(batches) for batch in batches]
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
