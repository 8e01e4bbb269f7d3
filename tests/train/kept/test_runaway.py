"""train/kept/runaway.py: a loss that runs away is told of once, and the run can end where it was good."""

import math

import pytest

from tests.makers.arrays import in_numpy
from tests.makers.small_runs import PLAIN, make, same, weights
from tunebook.events import Command, EndReason, Notice, StepEvent
from tunebook.runs.folder import read_events
from tunebook.train.kept.checkpoint import checkpoint_folders, read_checkpoint
from tunebook.train.kept.runaway import WINDOW, Runaway


def told_at(losses):
    """The steps after which a run of these losses is said to run away."""
    watch = Runaway(None)
    return [step for step, loss in enumerate(losses, start=1) if watch.look_at(step, loss)]


def test_a_loss_that_climbs_and_stays_up_is_told_of_once_and_again_when_it_had_come_back():
    low, high = [2.0] * 20, [6.0] * 20
    assert told_at(low + high) == [20 + math.ceil(WINDOW / 4) + 1]  # the first whose mean is above 3
    assert len(told_at(low + high + low + high)) == 2


@pytest.mark.parametrize(
    "losses",
    [
        [3.0 - step / 100 for step in range(200)],
        [2.0 + math.sin(step) / 2 for step in range(200)],
        [2.0] * 50 + [9.0] + [2.0] * 50,  # one hard batch
        [2.0] * 50 + [math.nan] * 3 + [2.0] * 50,  # told of already
        [6.0] * 40,
        [0.02] * 40 + [0.5] * 40,  # of a set learnt by heart, many times as much is little
    ],
    ids=["falls", "wobbles", "one batch", "not finite", "high from the start", "little"],
)
def test_what_is_no_runaway_is_not_told_of(losses):
    assert told_at(losses) == []


def runs_away(trainer, *, at):
    """Has a trainer learn far too fast after step `at`, and go back as soon as it is told."""

    def watch(event):
        if isinstance(event, StepEvent) and event.step == at:
            trainer.send("learning_rate", 30.0)
        if isinstance(event, Notice) and event.go_back_to is not None:
            trainer.send(Command.GO_BACK)

    trainer.subscribe(watch)
    return trainer


def test_going_back_ends_the_run_with_the_weights_of_the_last_checkpoint_before(tiny_folder, rows, tmp_path):
    settings = {**PLAIN, "max_steps": 90, "save_steps": 4, "learning_rate": 2e-2, "lr_scheduler_type": "constant"}
    trainer = runs_away(make(tiny_folder, rows[:2], tmp_path, dropout=0.0, **settings), at=60)
    result = trainer.train()
    [said] = [event for event in read_events(result.run_folder) if isinstance(event, Notice) and event.go_back_to]
    assert result.reason is EndReason.STOPPED
    assert 40 <= said.go_back_to <= 60
    assert f"the weights of step {said.go_back_to}" in said.text
    kept = {step: folder for folder in checkpoint_folders(result.run_folder) if (step := int(folder.name[5:]))}
    before = {name: in_numpy(array) for name, array in read_checkpoint(kept[said.go_back_to]).weights.items()}
    assert same(weights(trainer), before)
    assert len(result.steps) not in kept  # the weights that ran away are in no checkpoint
    told = [event.text for event in read_events(result.run_folder) if isinstance(event, Notice)]
    assert any(text.startswith(f"The weights of step {said.go_back_to} are in the model") for text in told)


def test_where_there_is_no_checkpoint_from_before_it_says_so_and_keeps_the_last_step(tiny_folder, rows, tmp_path):
    settings = {**PLAIN, "max_steps": 60, "save_steps": None, "learning_rate": 1e-3}
    trainer = make(tiny_folder, rows, tmp_path, dropout=0.0, **settings)
    trainer.add_step_callback(lambda step, *_: step == 3 and trainer.send(Command.GO_BACK))
    result = trainer.train()
    notices = [event.text for event in read_events(result.run_folder) if isinstance(event, Notice)]
    assert any("no whole checkpoint from before" in text for text in notices)
    assert [folder.name for folder in checkpoint_folders(result.run_folder)] == ["step-00003"]
