"""What can be asked of a run while it goes on: another learning rate, and to stop and keep nothing."""

import shutil
import time

import pytest

from tests.makers.small_runs import PLAIN, SETTINGS, asking, make, same, weights
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EndReason,
    EvalEvent,
    LearningRateChanged,
    Notice,
    RunStarted,
    StepEvent,
    Working,
)
from tunebook.runs.folder import read_events
from tunebook.train.kept.checkpoint import checkpoint_folders


@pytest.fixture(scope="module")
def changed(tiny_folder, rows, tmp_path_factory):
    """(run folder, trainer, result) of a run whose learning rate was lowered from 5e-3 during its fifth step."""
    trainer = asking(make(tiny_folder, rows, tmp_path_factory.mktemp("changed"), **PLAIN), 4, "learning_rate", 1e-3)
    result = trainer.train()
    return result.run_folder, trainer, result


def test_a_new_learning_rate_scales_the_schedule_from_the_next_step_on(tiny_folder, rows, tmp_path, changed):
    undisturbed = make(tiny_folder, rows, tmp_path, **PLAIN).train()
    before, after = [[step.lr for step in result.steps] for result in (undisturbed, changed[2])]
    assert after[:5] == before[:5]  # the step in progress keeps its rate
    assert after[5:] == pytest.approx([rate / 5 for rate in before[5:]])
    assert [step.loss for step in changed[2].steps[:6]] == [step.loss for step in undisturbed.steps[:6]]


def test_the_change_is_in_the_log_when_asked_for_and_when_made(changed):
    told = [event for event in read_events(changed[0]) if isinstance(event, CommandReceived | LearningRateChanged)]
    assert told == [
        CommandReceived(step=4, command=Command.LEARNING_RATE, value=1e-3),
        LearningRateChanged(step=5, learning_rate=1e-3),
    ]


@pytest.mark.parametrize("checkpoint", [3, 6])
def test_a_resumed_run_has_the_new_learning_rate_where_the_first_one_had_it(
    tiny_folder, rows, tmp_path, changed, checkpoint
):
    folder = tmp_path / "run-001"
    shutil.copytree(changed[0], folder)
    for newer in checkpoint_folders(folder)[checkpoint // 3 :]:  # as if the process had been killed after this one
        shutil.rmtree(newer)
    trainer = make(tiny_folder, rows, tmp_path, **PLAIN)
    result = trainer.train(resume_from_checkpoint=True)
    assert [step.lr for step in result.steps] == [step.lr for step in changed[2].steps]
    assert same(weights(trainer), weights(changed[1]))
    assert [event.step for event in read_events(folder) if isinstance(event, LearningRateChanged)] == [5]


def test_from_a_checkpoint_of_choice_a_later_change_is_not_made_again(tiny_folder, rows, tmp_path, changed):
    folder = tmp_path / "run-001"
    shutil.copytree(changed[0], folder)
    result = make(tiny_folder, rows, tmp_path, **PLAIN).train(resume_from_checkpoint=checkpoint_folders(folder)[0])
    assert result.steps[-1].lr == pytest.approx(5 * changed[2].steps[-1].lr)


def test_a_checkpoint_asked_for_together_with_a_learning_rate_holds_it(tiny_folder, rows, tmp_path):
    trainer = asking(make(tiny_folder, rows, tmp_path, **PLAIN), 3, "save")
    trainer = asking(trainer, 3, "learning_rate", 1e-3)
    first = trainer.train()
    (saved,) = [folder for folder in checkpoint_folders(first.run_folder) if folder.name == "step-00004"]
    resumed = make(tiny_folder, rows, tmp_path, **PLAIN).train(resume_from_checkpoint=saved)
    assert [step.lr for step in resumed.steps] == [step.lr for step in first.steps]
    changes = [event for event in read_events(first.run_folder) if isinstance(event, LearningRateChanged)]
    assert changes == [LearningRateChanged(step=4, learning_rate=1e-3)]


def test_a_discarded_run_leaves_the_weights_as_it_found_them_and_no_checkpoint_more(tiny_folder, rows, tmp_path):
    trainer = asking(make(tiny_folder, rows, tmp_path, **PLAIN), 4, Command.DISCARD)
    found = weights(trainer)
    result = trainer.train()
    assert (result.reason, len(result.steps)) == (EndReason.DISCARDED, 5)
    assert same(weights(trainer), found)
    assert [folder.name for folder in checkpoint_folders(result.run_folder)] == ["step-00003"]
    notices = [event.text for event in read_events(result.run_folder) if isinstance(event, Notice)]
    assert "The weights are as they were before this run; checkpoints it wrote stay." in notices


def test_a_discard_puts_every_weight_of_a_model_back_where_a_copy_fits(tiny_folder, rows, tmp_path):
    trainer = asking(trained_whole(tiny_folder, rows, tmp_path), 4, Command.DISCARD)
    found = weights(trainer)
    result = trainer.train()
    assert (result.reason, len(result.steps)) == (EndReason.DISCARDED, 5)
    assert same(weights(trainer), found)
    [started] = [event for event in read_events(result.run_folder) if isinstance(event, RunStarted)]
    assert started.discards


def test_where_no_copy_fits_the_run_says_so_before_its_first_step(tiny_folder, rows, tmp_path, monkeypatch):
    trainer = asking(trained_whole(tiny_folder, rows, tmp_path), 1, Command.DISCARD)
    copy = sum(array.nbytes for array in weights(trainer).values())
    need = trainer.memory().total  # the copy among it
    monkeypatch.setattr("tunebook.machine.runtime.training_limit_gb", lambda: (need - copy // 2) / 1e9)
    found = weights(trainer)
    result = trainer.train()
    assert not same(weights(trainer), found)
    events = list(read_events(result.run_folder))
    assert not events[0].discards
    assert "cannot be discarded" in events[1].text
    assert "load the model again" in events[1].text


def trained_whole(folder, rows, out):
    """A trainer of every weight of the model in `folder`."""
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128, full_finetuning=True)
    trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(**{**SETTINGS, **PLAIN, "output_dir": str(out)}))
    trainer.subscribe(lambda event: None)
    return trainer


def test_a_step_says_what_memory_is_held_and_what_is_kept_for_reuse(changed):
    steps = [event for event in read_events(changed[0]) if isinstance(event, StepEvent)]
    for step in steps:
        assert 0 < step.active_gb <= step.peak_gb
        assert step.cache_gb >= 0


def test_pausing_waits_and_resuming_goes_on(tiny_folder, rows, tmp_path, straight):
    trainer = make(tiny_folder, rows, tmp_path / "out")
    paused = []

    def watch(event):
        if isinstance(event, StepEvent) and event.step == 3:
            trainer.send("pause")
        if getattr(event, "what", "") == "paused":
            paused.append(time.monotonic())
            if len(paused) == 3:
                trainer.send("resume")

    trainer.subscribe(watch)
    result = trainer.train()
    assert len(paused) == 3
    assert result.reason is EndReason.FINISHED
    assert same(weights(trainer), straight[1])


def test_a_checkpoint_and_a_score_can_be_asked_for(tiny_folder, rows, tmp_path, straight):
    trainer = make(tiny_folder, rows, tmp_path / "out", eval_dataset=rows[:3], save_steps=None)
    events = []
    trainer.subscribe(events.append)
    trainer.add_step_callback(lambda step, *_: [trainer.send("save"), trainer.send("evaluate")] if step == 5 else None)
    trainer.train()
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [5, 12]
    looks = [(event.step, event.asked) for event in events if isinstance(event, EvalEvent)]
    assert looks == [(0, False), (5, True), (12, False)]
    assert [event.command for event in events if isinstance(event, CommandReceived)] == ["save", "evaluate"]
    assert same(weights(trainer), straight[1])  # looking changes nothing


def test_what_is_asked_for_in_a_pause_is_done_in_the_pause(tiny_folder, rows, tmp_path, straight):
    trainer = make(tiny_folder, rows, tmp_path / "out", eval_dataset=rows[:3], save_steps=None)
    events, asked = [], [["save", "evaluate"], ["resume"]]

    def watch(event):
        events.append(event)
        if isinstance(event, StepEvent) and event.step == 4:
            trainer.send("pause")
        if isinstance(event, Working) and event.what == "paused" and asked:
            for command in asked.pop(0):
                trainer.send(command)

    trainer.subscribe(watch)
    trainer.train()
    resumed = next(n for n, e in enumerate(events) if isinstance(e, CommandReceived) and e.command == "resume")
    done = [event for event in events[:resumed] if isinstance(event, CheckpointSaved | EvalEvent) and event.step]
    assert [(type(event), event.step) for event in done] == [(EvalEvent, 4), (CheckpointSaved, 4)]
    assert same(weights(trainer), straight[1])


def test_what_cannot_be_done_when_asked_is_said(tiny_folder, rows):
    trainer = make(tiny_folder, rows, None, output_dir=None, max_steps=2)
    told = []
    trainer.subscribe(lambda event: told.append(event.text) if isinstance(event, Notice) else None)
    trainer.add_step_callback(lambda step, *_: [trainer.send("save"), trainer.send("evaluate")] if step == 1 else None)
    trainer.train()
    assert any(text.startswith("Asked to save, but there is no folder to save in; set Tr") for text in told)
    assert any(text.startswith("Asked to evaluate, but there are no held-out rows") for text in told)
