import asyncio
import math
import os
import signal

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import (
    CheckpointSaved,
    CommandReceived,
    EndReason,
    EvalEvent,
    Notice,
    RunEnded,
    RunStarted,
    StepEvent,
    Working,
)
from tunebook.runs.folder import read_events


def make(model, rows, **settings):
    defaults = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4, "warmup_steps": 0}
    held_out = settings.pop("eval_dataset", None)
    return Trainer(model, train_dataset=rows, eval_dataset=held_out, args=TrainingConfig(**{**defaults, **settings}))


@pytest.fixture
def adapted(model):
    return FastModel.get_peft_model(model, r=4, lora_alpha=8)


def weights(model):
    return {name: np.array(array) for name, array in tree_flatten(model.module.trainable_parameters())}


def recorded(trainer):
    events = []
    trainer.subscribe(events.append)
    return events


def ignore(*_):
    """A listener, so that no progress bar is drawn."""


# What a step computes


@pytest.mark.parametrize("size", [6, 3, 2, 1])
def test_splitting_a_window_never_changes_the_update(tiny_folder, rows, size):
    """Rows of 1 to 16 answer words: a mean of the micro-batches' means would differ in the second digit."""

    def trained(batch_size):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=4, lora_alpha=8)
        trainer = make(
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
    assert all(np.allclose(found[name], expected[name], atol=1e-6) for name in expected)


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
def test_twenty_steps_are_those_of_transformers_peft_and_torch(tiny_folder, rows, choice, whole):
    """Same weights, same rows in the same order, same AdamW, schedule and clipping, in fp32 on both sides."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

    model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, modules_to_save=whole or None, **choice)
    start = weights(model)
    settings = {"max_steps": 20, "learning_rate": 5e-3, "lr_scheduler_type": "cosine", "warmup_steps": 3}
    trainer = make(model, rows, **settings, weight_decay=0.01, max_grad_norm=0.5)
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
    trainer = make(adapted, rows[:4], max_steps=20, learning_rate=1e-2)
    trainer.subscribe(ignore)
    steps = trainer.train().steps
    assert steps[-1].loss < 0.5 * steps[0].loss


def test_a_step_that_is_not_finite_is_not_applied_and_its_rows_are_named(adapted, rows):
    trainer = make(adapted, rows, max_steps=8)
    events = recorded(trainer)
    poison = adapted.module.model.norm.weight
    before = weights(adapted)
    adapted.module.model.norm.weight = poison * math.nan
    result = trainer.train()
    assert result.reason is EndReason.NOT_FINITE
    assert len(result.steps) == 3
    assert all(np.array_equal(before[name], array) for name, array in weights(adapted).items())
    told = [event.text for event in events if isinstance(event, Notice)]
    assert len(told) == 3
    assert "4 of its 4 rows alone give such a loss; its training rows: " in told[0]


def test_one_poisoned_row_is_found_among_the_others_and_its_step_alone_is_left_out(tmp_path, rows):
    """A weight that is NaN for one token spoils the rows that hold it, and no others."""
    folder = tiny_model_folder(tmp_path, tie_word_embeddings=False)
    model, tokenizer = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4)
    token = tokenizer.encode("ß", add_special_tokens=False)[0]
    weight = np.array(model.module["model"]["embed_tokens"]["weight"])
    weight[token] = np.nan
    model.module["model"]["embed_tokens"]["weight"] = mx.array(weight)
    poisoned = {"messages": [{"role": "user", "content": "ß"}, {"role": "assistant", "content": "the dog"}]}
    trainer = make(model, [*rows[:7], poisoned], max_steps=2, dataset_order="sequential")
    assert [token in row.tokens for row in trainer.train_rows] == [False] * 7 + [True]
    events = recorded(trainer)
    result = trainer.train()
    assert result.reason is EndReason.FINISHED
    assert [math.isfinite(step.loss) for step in result.steps] == [True, False]
    told = [event.text for event in events if isinstance(event, Notice)]
    assert any("1 of its 4 rows alone give such a loss; its training rows: 7." in text for text in told)
    assert all(np.isfinite(value).all() for value in weights(model).values())


# The smallest runs there are


def test_a_single_row_and_a_single_step_train_and_save(adapted, rows, tmp_path):
    before = weights(adapted)
    trainer = make(adapted, rows[:1], eval_dataset=rows[:1], max_steps=1, output_dir=str(tmp_path))
    trainer.subscribe(ignore)
    result = trainer.train()
    assert result.reason is EndReason.FINISHED
    assert [score.step for score in result.evals] == [0, 1]
    assert result.evals[1].loss < result.evals[0].loss
    assert any(not np.array_equal(before[name], value) for name, value in weights(adapted).items())
    assert (tmp_path / "run-001" / "checkpoints" / "step-00001").is_dir()


def test_held_out_rows_that_fill_no_batch_are_all_scored(adapted, rows):
    alone = make(adapted, rows, eval_dataset=rows[:3], per_device_eval_batch_size=1)
    together = make(adapted, rows, eval_dataset=rows[:3], per_device_eval_batch_size=64)
    assert alone.evaluate().loss == pytest.approx(together.evaluate().loss, rel=1e-6)
    assert (
        alone.evaluate().tokens == together.evaluate().tokens == sum(row.supervised_tokens for row in alone.eval_rows)
    )


# What is told of it


def test_the_step_callback_gets_nine_true_values_after_every_step(adapted, rows):
    trainer = make(adapted, rows, max_steps=5, learning_rate=1e-3, max_grad_norm=None, lr_scheduler_type="linear")
    calls = []
    trainer.add_step_callback(lambda *values: calls.append(values))
    trainer.train()
    step, total, loss, lr, speed, peak, elapsed, tokens, norm = zip(*calls, strict=True)
    assert step == (1, 2, 3, 4, 5)
    assert set(total) == {5}
    assert lr == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4, 2e-4])
    counts = [row.supervised_tokens for row in trainer.train_rows]
    assert tokens[2] == sum(counts)  # twelve rows, four per step: the epoch ends with step 3
    assert all(math.isfinite(value) and value > 0 for value in (*loss, *speed, *peak, *norm))
    assert list(elapsed) == sorted(elapsed)
    assert peak[-1] == max(peak)


def test_the_first_loss_and_norm_are_those_of_the_whole_first_window(adapted, rows):
    from mlx.nn import value_and_grad

    from tunebook.objectives.next_token import summed_loss, supervised_positions

    trainer = make(adapted, rows[:4], max_steps=1, max_grad_norm=0.01)
    trainer.subscribe(ignore)
    batch = adapted.family.collate(trainer.train_rows, 97)
    positions = supervised_positions(batch)
    nats, gradients = value_and_grad(adapted.module, summed_loss(adapted.family))(adapted.module, batch, positions)
    norm = math.sqrt(sum((array**2).sum().item() for _, array in tree_flatten(gradients))) / positions.size
    [step] = trainer.train().steps
    assert step.loss == pytest.approx(nats.item() / positions.size, rel=1e-5)
    assert step.grad_norm == pytest.approx(norm, rel=1e-4)  # before clipping


def test_a_callback_that_raises_is_reported_once_and_training_goes_on(adapted, rows):
    trainer = make(adapted, rows, max_steps=3)
    events, calls = recorded(trainer), []

    def broken(*values):
        calls.append(values)
        raise RuntimeError("no disk")

    trainer.add_step_callback(broken)
    with pytest.warns(UserWarning, match="no disk"):
        result = trainer.train()
    assert result.reason is EndReason.FINISHED
    assert len(calls) == 1
    assert sum("no disk" in event.text for event in events if isinstance(event, Notice)) == 1


def test_events_come_in_order_and_the_last_is_the_end(adapted, rows):
    trainer = make(adapted, rows[:8], eval_dataset=rows[8:], max_steps=4, eval_steps=2)
    events = recorded(trainer)
    trainer.train()
    kinds = [type(event) for event in events if not isinstance(event, Working)]
    assert kinds == [
        RunStarted,
        EvalEvent,
        StepEvent,
        StepEvent,
        EvalEvent,
        StepEvent,
        StepEvent,
        EvalEvent,
        CheckpointSaved,
        RunEnded,
    ]
    assert [event.step for event in events if isinstance(event, EvalEvent)] == [0, 2, 4]


def test_the_run_folder_keeps_what_the_listeners_were_told(adapted, rows, tmp_path):
    trainer = make(adapted, rows[:8], eval_dataset=rows[8:], output_dir=str(tmp_path))
    events = recorded(trainer)
    first, second = trainer.train(), trainer.train()
    assert [first.run_folder.name, second.run_folder.name] == ["run-001", "run-002"]
    kept = [*read_events(first.run_folder), *read_events(second.run_folder)]
    assert kept == [event for event in events if not isinstance(event, Working)]


# How it ends


def test_stop_ends_the_run_with_the_step_in_progress(adapted, rows):
    trainer = make(adapted, rows, max_steps=50)
    trainer.add_step_callback(lambda step, *_: trainer.stop() if step == 2 else None)
    result = trainer.train()
    assert result.reason is EndReason.STOPPED
    assert [step.step for step in result.steps] == [1, 2]


def test_a_stop_in_the_middle_of_a_step_lets_the_step_finish_and_is_acknowledged_before(adapted, rows):
    trainer = make(adapted, rows, max_steps=50)
    events = recorded(trainer)
    trainer.subscribe(
        lambda event: trainer.stop() if isinstance(event, Working) and event.step == 3 and event.done == 1 else None
    )
    result = trainer.train()
    assert len(result.steps) == 3
    heard = next(index for index, event in enumerate(events) if isinstance(event, CommandReceived))
    assert isinstance(events[heard + 1], Working)
    assert events[heard].step == 2


def test_a_stop_while_scoring_ends_the_run_without_a_score(adapted, rows):
    trainer = make(adapted, rows, eval_dataset=rows[:6])
    trainer.subscribe(
        lambda event: trainer.stop() if isinstance(event, Working) and event.what == "evaluating" else None
    )
    result = trainer.train()
    assert result.reason is EndReason.STOPPED
    assert (result.steps, result.evals) == ((), ())


def test_an_interrupt_in_a_blocking_run_ends_it_with_a_result(adapted, rows):
    trainer = make(adapted, rows, max_steps=50)
    trainer.add_step_callback(lambda step, *_: os.kill(os.getpid(), signal.SIGINT) if step == 2 else None)
    result = trainer.train()
    assert result.reason is EndReason.INTERRUPTED
    assert [step.step for step in result.steps] == [1, 2]


def test_cancelling_an_awaited_run_ends_it_with_a_result(adapted, rows):
    trainer = make(adapted, rows, max_steps=50)

    async def cell():
        task = asyncio.ensure_future(trainer.train_async())
        trainer.add_step_callback(lambda step, *_: task.cancel() if step == 2 else None)
        return await task

    result = asyncio.run(cell())
    assert result.reason is EndReason.INTERRUPTED
    assert [step.step for step in result.steps] == [1, 2]


def test_other_tasks_run_between_the_steps_of_an_awaited_run(adapted, rows):
    trainer = make(adapted, rows, max_steps=5)
    seen = []
    trainer.add_step_callback(lambda step, *_: seen.append(step))

    async def cell():
        async def press_stop():
            while len(seen) < 2:
                await asyncio.sleep(0)
            trainer.stop()

        result, _ = await asyncio.gather(trainer.train_async(), press_stop())
        return result

    assert asyncio.run(cell()).reason is EndReason.STOPPED
    assert len(seen) < 5


def test_waiting_and_awaiting_train_the_same(tiny_folder, rows):
    results = []
    for drive in (Trainer.train, lambda trainer: asyncio.run(trainer.train_async())):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        trainer = make(FastModel.get_peft_model(model, r=4, lora_dropout=0.1), rows)
        trainer.subscribe(ignore)
        results.append(([step.loss for step in drive(trainer).steps], weights(model)))
    assert results[0][0] == results[1][0]
    assert all(np.array_equal(results[0][1][name], array) for name, array in results[1][1].items())


def test_an_error_in_a_step_is_told_and_rises(adapted, rows):
    trainer = make(adapted, rows)
    events = recorded(trainer)

    def breaks(event):
        if isinstance(event, StepEvent):
            adapted.module.model.embed_tokens.weight = mx.zeros((4, 3))  # the wrong width

    trainer.subscribe(breaks)
    with pytest.raises(ValueError, match=r"\["):
        trainer.train()
    assert isinstance(events[-1], RunEnded)
    assert events[-1].reason is EndReason.FAILED


def test_training_leaves_the_mode_of_the_model_as_it_was(adapted, rows):
    adapted.module.eval()
    trainer = make(adapted, rows, max_steps=1)
    trainer.subscribe(ignore)
    trainer.train()
    assert not adapted.module.training


# What cannot be trained


def test_a_model_without_adapters_is_refused_with_the_next_move(model, rows):
    with pytest.raises(ValueError, match="get_peft_model"):
        make(model, rows).train()


def test_another_models_tokenizer_is_refused(adapted, rows, tiny_folder):
    _, other = FastModel.from_pretrained(tiny_folder)
    with pytest.raises(ValueError, match="not the model's own"):
        Trainer(adapted, other, train_dataset=rows)


def test_a_row_without_an_answer_is_refused_before_the_first_step(adapted, rows):
    with pytest.raises(ValueError, match=r"1 of 13 rows .*row 12.*no assistant turn"):
        make(adapted, [*rows, {"messages": [{"role": "user", "content": "Anyone?"}]}])


def test_a_command_with_nothing_to_hear_it_is_an_error(adapted, rows):
    with pytest.raises(RuntimeError, match="Nothing is being trained"):
        make(adapted, rows).stop()


def test_evaluate_measures_what_the_run_measures(adapted, rows):
    trainer = make(adapted, rows[:8], eval_dataset=rows[8:])
    trainer.subscribe(ignore)
    result = trainer.train()
    assert trainer.evaluate().loss == pytest.approx(result.evals[-1].loss, rel=1e-6)
    with pytest.raises(ValueError, match="no eval_dataset"):
        make(adapted, rows).evaluate()
