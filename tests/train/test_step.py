"""What a step computes: the update of transformers, PEFT and torch, however a window is split."""

import math

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.makers.small_runs import ignore, recorded, trainer_of, weights
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.events import (
    EndReason,
    Notice,
)


@pytest.mark.parametrize("size", [6, 3, 2, 1])
@pytest.mark.float32
def test_splitting_a_window_never_changes_the_update(tiny_folder, rows, size):
    """Rows of 1 to 16 answer words: a mean of the micro-batches' means would differ in the second digit.

    Adam makes updates of one size, 1e-2, of gradients of any size; what it makes of their last digits is 1e-4 of that.
    """

    def trained(batch_size):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=4, lora_alpha=8)
        trainer = trainer_of(
            model,
            rows[:6],
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=6 // batch_size,
            max_steps=3,
            learning_rate=1e-2,
        )
        trainer.subscribe(ignore)
        return weights(model), trainer.train(), weights(model)

    _, whole, expected = trained(6)
    _, split, found = trained(size)
    assert [step.loss for step in split.steps] == pytest.approx([step.loss for step in whole.steps], rel=1e-5)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=3e-6, err_msg=name)


@pytest.mark.parametrize(
    ("choice", "whole"),
    [
        ({}, ()),
        ({"use_rslora": True}, ()),
        ({"use_dora": True}, ()),
        ({}, ("embed_tokens", "input_layernorm")),
    ],
    ids=["lora", "rslora", "dora", "modules_to_save"],
)
@pytest.mark.float32
def test_twenty_steps_are_those_of_transformers_peft_and_torch(tiny_folder, rows, choice, whole):
    """Same weights, same rows in the same order, same AdamW, schedule and clipping, in fp32 on both sides."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

    model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, modules_to_save=whole or None, **choice)
    start = weights(model)
    settings = {"max_steps": 20, "learning_rate": 5e-3, "lr_scheduler_type": "cosine", "warmup_steps": 3}
    trainer = trainer_of(model, rows, **settings, weight_decay=0.01, max_grad_norm=0.5)
    trainer.subscribe(ignore)

    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32, attn_implementation="eager")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, **choice))
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad |= any(f".{module}." in name for module in whole)
    named = {
        name.removeprefix("base_model.model.")
        .replace("lora_A.default.weight", "lora_a")
        .replace("lora_B.default.weight", "lora_b")
        .replace("lora_magnitude_vector.default.weight", "m"): parameter
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    assert named.keys() == start.keys()
    for name, parameter in named.items():
        found = torch.tensor(start[name].T.copy() if "lora" in name else start[name])
        assert "lora" in name or torch.allclose(parameter, found, atol=1e-5), name
        parameter.data = found
    norms = [parameter for name, parameter in named.items() if "norm" in name]
    others = [parameter for name, parameter in named.items() if "norm" not in name]
    groups = [{"params": others, "weight_decay": 0.01}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=5e-3)
    scheduler = get_cosine_schedule_with_warmup(optimizer, 3, 20)

    from tunebook.tokens.batch_order import windows

    losses = []
    lengths = [len(row.tokens) for row in trainer.train_rows]
    for window, _ in zip(windows(lengths, trainer.config), range(20), strict=False):
        encoded = [trainer.train_rows[number] for batch in window for number in batch]
        nats, tokens = torch.zeros(()), 0
        for row in encoded:
            labels = torch.tensor(np.where(row.loss_mask, row.tokens, -100), dtype=torch.long)
            logits = theirs(torch.tensor(row.tokens[None], dtype=torch.long)).logits[0]
            nats = nats + torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum")
            tokens += row.supervised_tokens
        (nats / tokens).backward()
        torch.nn.utils.clip_grad_norm_(named.values(), 0.5)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(nats.item() / tokens)

    result = trainer.train()
    assert [step.loss for step in result.steps] == pytest.approx(losses, rel=1e-4)
    for name, array in weights(model).items():
        found = named[name].detach().numpy()
        assert np.allclose(array, found.T if "lora" in name else found, atol=1e-4), name


def test_the_loss_falls_on_rows_it_is_shown_again(adapted, rows):
    trainer = trainer_of(adapted, rows[:4], max_steps=20, learning_rate=1e-2)
    trainer.subscribe(ignore)
    steps = trainer.train().steps
    assert steps[-1].loss < 0.5 * steps[0].loss


def test_a_step_that_is_not_finite_is_not_applied_and_its_rows_are_named(adapted, rows):
    trainer = trainer_of(adapted, rows, max_steps=8)
    events = recorded(trainer)
    poison = adapted.module.model.norm.weight
    before = weights(adapted)
    adapted.module.model.norm.weight = poison * math.nan
    result = trainer.train()
    assert result.reason is EndReason.NOT_FINITE
    assert len(result.steps) == 3
    assert all(np.array_equal(before[name], array) for name, array in weights(adapted).items())
    told = [event.text for event in events if isinstance(event, Notice) and "was not applied" in event.text]
    assert len(told) == 3
    assert "4 of its 4 rows alone give such a loss; its training rows: " in told[0]


def test_one_poisoned_row_is_found_among_the_others_and_its_step_alone_is_left_out(tmp_path, rows):
    """A weight that is NaN for one token spoils the rows that hold it, and no others."""
    folder = tiny_model_folder(tmp_path, tie_word_embeddings=False)
    model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4)
    token = tokenizer.encode("ß", add_special_tokens=False)[0]
    embedding = model.module["model"]["embed_tokens"]
    embedding["weight"] = mx.where(mx.arange(len(embedding["weight"]))[:, None] == token, mx.nan, embedding["weight"])
    poisoned = {"messages": [{"role": "user", "content": "ß"}, {"role": "assistant", "content": "the dog"}]}
    trainer = trainer_of(model, [*rows[:7], poisoned], max_steps=2, dataset_order="sequential")
    assert [token in row.tokens for row in trainer.train_rows] == [False] * 7 + [True]
    events = recorded(trainer)
    result = trainer.train()
    assert result.reason is EndReason.FINISHED
    assert [math.isfinite(step.loss) for step in result.steps] == [True, False]
    told = [event.text for event in events if isinstance(event, Notice)]
    assert any("1 of its 4 rows alone give such a loss; its training rows: 7." in text for text in told)
    assert all(np.isfinite(value).all() for value in weights(model).values())


def test_a_single_row_and_a_single_step_train_and_save(adapted, rows, tmp_path):
    before = weights(adapted)
    trainer = trainer_of(adapted, rows[:1], eval_dataset=rows[:1], max_steps=1, output_dir=str(tmp_path))
    trainer.subscribe(ignore)
    result = trainer.train()
    assert result.reason is EndReason.FINISHED
    assert [score.step for score in result.evals] == [0, 1]
    assert result.evals[1].loss < result.evals[0].loss
    assert any(not np.array_equal(before[name], value) for name, value in weights(adapted).items())
    assert (tmp_path / "run-001" / "checkpoints" / "step-00001").is_dir()


def test_held_out_rows_that_fill_no_batch_are_all_scored(adapted, rows):
    alone = trainer_of(adapted, rows, eval_dataset=rows[:3], per_device_eval_batch_size=1)
    together = trainer_of(adapted, rows, eval_dataset=rows[:3], per_device_eval_batch_size=64)
    assert alone.evaluate().loss == pytest.approx(together.evaluate().loss, rel=1e-6)
    assert (
        alone.evaluate().tokens == together.evaluate().tokens == sum(row.supervised_tokens for row in alone.eval_rows)
    )


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_limit_on_each_tensor_by_itself_holds_for_each_of_them_in_the_step(tiny_folder, rows, micro_batches):
    """Plain gradient descent at a rate of 1 moves every tensor by its clipped gradient."""

    def moves(**limit):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=4, lora_alpha=8)
        before = weights(model)
        trainer_of(
            model,
            rows[:6],
            per_device_train_batch_size=6 // micro_batches,
            gradient_accumulation_steps=micro_batches,
            max_steps=1,
            learning_rate=1.0,
            warmup_steps=0,
            optim="sgd",
            weight_decay=0.0,
            **limit,
        ).train()
        return {name: value - before[name] for name, value in weights(model).items()}

    whole, limited = moves(max_grad_norm=None), moves(max_grad_leaf_norm=1e-3)
    norms = {name: float(np.linalg.norm(move)) for name, move in whole.items()}
    assert max(norms.values()) > 1e-3
    for name, move in limited.items():
        assert np.allclose(move, whole[name] * min(1.0, 1e-3 / (norms[name] + 1e-6)), atol=1e-7, rtol=1e-4), name


def test_the_first_loss_and_norm_are_those_of_the_whole_first_window(adapted, rows):
    from mlx.nn import value_and_grad

    from tunebook.objectives.next_token import summed_loss, supervised_positions

    trainer = trainer_of(adapted, rows[:4], max_steps=1, max_grad_norm=0.01)
    trainer.subscribe(ignore)
    batch = adapted.family.collate(trainer.train_rows, 97)
    positions = supervised_positions(batch)
    nats, gradients = value_and_grad(adapted.module, summed_loss(adapted.family))(adapted.module, batch, positions)
    norm = math.sqrt(sum((array**2).sum().item() for _, array in tree_flatten(gradients))) / positions.size
    [step] = trainer.train().steps
    assert step.loss == pytest.approx(nats.item() / positions.size, rel=1e-5)
    assert step.grad_norm == pytest.approx(norm, rel=1e-4)  # before clipping
