"""trainer.py: a run is waited for or awaited, stopped and interrupted; what cannot be trained is refused before it."""

import asyncio
import json
import os
import signal

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.tuner.datasets import TextDataset
from mlx_lm.tuner.trainer import default_loss

from tests.makers.small_runs import ignore, recorded, trainer_of, weights
from tunebook import FastModel, Trainer
from tunebook.events import (
    CommandReceived,
    EndReason,
    RunEnded,
    StepEvent,
    Working,
)


def test_stop_ends_the_run_with_the_step_in_progress(adapted, rows):
    trainer = trainer_of(adapted, rows, max_steps=50)
    trainer.add_step_callback(lambda step, *_: trainer.stop() if step == 2 else None)
    result = trainer.train()
    assert result.reason is EndReason.STOPPED
    assert [step.step for step in result.steps] == [1, 2]


def test_a_stop_in_the_middle_of_a_step_lets_the_step_finish_and_is_acknowledged_before(adapted, rows):
    trainer = trainer_of(adapted, rows, max_steps=50)
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
    trainer = trainer_of(adapted, rows, eval_dataset=rows[:6])
    trainer.subscribe(
        lambda event: trainer.stop() if isinstance(event, Working) and event.what == "evaluating" else None
    )
    result = trainer.train()
    assert result.reason is EndReason.STOPPED
    assert (result.steps, result.evals) == ((), ())


def test_an_interrupt_in_a_blocking_run_ends_it_with_a_result(adapted, rows):
    trainer = trainer_of(adapted, rows, max_steps=50)
    trainer.add_step_callback(lambda step, *_: os.kill(os.getpid(), signal.SIGINT) if step == 2 else None)
    result = trainer.train()
    assert result.reason is EndReason.INTERRUPTED
    assert [step.step for step in result.steps] == [1, 2]


def test_cancelling_an_awaited_run_ends_it_with_a_result(adapted, rows):
    trainer = trainer_of(adapted, rows, max_steps=50)

    async def cell():
        task = asyncio.ensure_future(trainer.train_async())
        trainer.add_step_callback(lambda step, *_: task.cancel() if step == 2 else None)
        return await task

    result = asyncio.run(cell())
    assert result.reason is EndReason.INTERRUPTED
    assert [step.step for step in result.steps] == [1, 2]


def test_other_tasks_run_between_the_steps_of_an_awaited_run(adapted, rows):
    trainer = trainer_of(adapted, rows, max_steps=5)
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
        trainer = trainer_of(FastModel.get_peft_model(model, r=4, lora_dropout=0.1), rows)
        trainer.subscribe(ignore)
        results.append(([step.loss for step in drive(trainer).steps], weights(model)))
    assert results[0][0] == results[1][0]
    assert all(np.array_equal(results[0][1][name], array) for name, array in results[1][1].items())


def test_an_error_in_a_step_is_told_and_rises(adapted, rows):
    trainer = trainer_of(adapted, rows)
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
    trainer = trainer_of(adapted, rows, max_steps=1)
    trainer.subscribe(ignore)
    trainer.train()
    assert not adapted.module.training


def test_a_model_without_adapters_is_refused_with_the_next_move(model, rows):
    with pytest.raises(ValueError, match="get_peft_model"):
        trainer_of(model, rows).train()


def test_another_models_tokenizer_is_refused(adapted, rows, tiny_folder):
    _, other = FastModel.from_pretrained(tiny_folder)
    with pytest.raises(ValueError, match="not the model's own"):
        Trainer(adapted, other, train_dataset=rows)


def test_a_row_without_an_answer_is_refused_before_the_first_step(adapted, rows):
    with pytest.raises(ValueError, match=r"1 of 13 rows .*row 12.*no assistant turn"):
        trainer_of(adapted, [*rows, {"messages": [{"role": "user", "content": "Anyone?"}]}])


def test_a_command_with_nothing_to_hear_it_is_an_error(adapted, rows):
    with pytest.raises(RuntimeError, match="Nothing is being trained"):
        trainer_of(adapted, rows).stop()


@pytest.mark.parametrize("given", ["rows", "a file"])
def test_evaluate_measures_any_rows_as_stock_mlx_lm_does(tuned, rows, given, tmp_path):
    texts = [{"text": f"The {name} goes to town on day {len(name)}."} for name in ("fox", "hound", "otter", "magpie")]
    if given == "a file":
        (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    trainer = trainer_of(tuned, rows, per_device_eval_batch_size=3)
    measured = trainer.evaluate(texts if given == "rows" else tmp_path / "texts.jsonl")
    stock = TextDataset(texts, tuned.loaded.tokenizer)
    tuned.module.eval()
    nats, tokens = 0.0, 0
    for ids, offset in map(stock.process, texts):  # a row by itself: in a padded batch stock counts a token of padding
        loss, count = default_loss(tuned.module, mx.array([ids]), mx.array([[offset, len(ids)]]))
        nats, tokens = nats + loss.item() * count.item(), tokens + count.item()
    assert measured.loss == pytest.approx(nats / tokens, rel=1e-5)
    assert measured.tokens == tokens


def test_rows_that_evaluate_leaves_out_or_refuses_are_told_of(tuned, rows):
    trainer = trainer_of(tuned, rows, max_seq_length=48)
    long = {"messages": [{"role": "user", "content": "x " * 200}, {"role": "assistant", "content": "No."}]}
    assert "1 of 13" in " ".join(trainer.evaluate([*rows, long]).notices)
    assert not trainer.evaluate(rows[:2]).notices
    with pytest.raises(ValueError, match="no assistant turn"):
        trainer.evaluate([{"messages": [{"role": "user", "content": "Anyone?"}]}])


def test_evaluate_measures_what_the_run_measures(adapted, rows):
    trainer = trainer_of(adapted, rows[:8], eval_dataset=rows[8:])
    trainer.subscribe(ignore)
    result = trainer.train()
    assert trainer.evaluate().loss == pytest.approx(result.evals[-1].loss, rel=1e-6)
    with pytest.raises(ValueError, match="no eval_dataset"):
        trainer_of(adapted, rows).evaluate()
