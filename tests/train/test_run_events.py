"""What is told of a run: nine values after every step, and its events in their order."""

import math

import pytest

from tests.makers.small_runs import recorded, trainer_of
from tunebook.events import (
    CheckpointSaved,
    EndReason,
    EvalEvent,
    Notice,
    RunEnded,
    RunStarted,
    StepEvent,
    Working,
)
from tunebook.runs.folder import read_events


def test_the_step_callback_gets_nine_true_values_after_every_step(adapted, rows):
    trainer = trainer_of(adapted, rows, max_steps=5, learning_rate=1e-3, max_grad_norm=None, lr_scheduler_type="linear")
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


def test_a_callback_that_raises_is_reported_once_and_training_goes_on(adapted, rows):
    trainer = trainer_of(adapted, rows, max_steps=3)
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
    trainer = trainer_of(adapted, rows[:8], eval_dataset=rows[8:], max_steps=4, eval_steps=2)
    events = recorded(trainer)
    trainer.train()
    kinds = [type(event) for event in events if not isinstance(event, Working | Notice)]
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
    trainer = trainer_of(adapted, rows[:8], eval_dataset=rows[8:], output_dir=str(tmp_path))
    events = recorded(trainer)
    first, second = trainer.train(), trainer.train()
    assert [first.run_folder.name, second.run_folder.name] == ["run-001", "run-002"]
    kept = [*read_events(first.run_folder), *read_events(second.run_folder)]
    assert kept == [event for event in events if not isinstance(event, Working)]
