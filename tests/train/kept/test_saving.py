"""A run is kept beside the notebook unless told not to, and its checkpoints come by steps and by the clock."""

from itertools import pairwise
from pathlib import Path

import pytest

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import CheckpointSaved, Notice
from tunebook.objectives import DPO
from tunebook.train.kept.checkpoint import checkpoint_folders
from tunebook.train.kept.saving import SaveSchedule, checkpoint_bytes, said_of_the_disk


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def saved_after(*, steps, step_seconds, save_seconds=1.0, **settings):
    """(step, minute) of each checkpoint of a run whose steps and checkpoints take so long."""
    clock = Clock()
    schedule = SaveSchedule(TrainingConfig(**settings), clock)
    clock.now += 500.0  # a held-out loss before the first step
    schedule.start()
    began, saved = clock.now, []
    for step in range(1, steps + 1):
        clock.now += step_seconds
        if schedule.is_due(step):
            saved.append((step, (clock.now - began) / 60))
            clock.now += save_seconds
            schedule.tried(save_seconds)
    return saved


def test_the_first_checkpoint_comes_within_two_minutes_and_then_one_every_ten():
    saved = saved_after(steps=2000, step_seconds=1.0, save_steps=None)
    minutes = [minute for _, minute in saved]
    assert 1.9 < minutes[0] <= 2.0
    assert all(9.9 < later - earlier <= 10.1 for earlier, later in pairwise(minutes))


def test_steps_of_over_a_minute_do_not_put_the_first_checkpoint_off():
    assert saved_after(steps=3, step_seconds=70.0, save_steps=None)[0][0] == 1


def test_checkpoints_by_steps_put_off_those_by_the_clock():
    saved = saved_after(steps=300, step_seconds=0.5, save_steps=100)
    assert [step for step, _ in saved] == [100, 200, 300]


def test_without_minutes_only_steps_count_and_without_either_nothing_does():
    assert [step for step, _ in saved_after(steps=25, step_seconds=600, save_steps=10, save_minutes=None)] == [10, 20]
    assert saved_after(steps=25, step_seconds=600, save_steps=None, save_minutes=None) == []


def test_checkpoints_that_take_long_are_written_more_rarely():
    minutes = [minute for _, minute in saved_after(steps=9000, step_seconds=1, save_seconds=120, save_steps=None)]
    assert min(later - earlier for earlier, later in pairwise(minutes)) > 38


def test_fewer_minutes_than_two_hold_from_the_first_checkpoint_on():
    assert saved_after(steps=100, step_seconds=1, save_steps=None, save_minutes=0.5)[0][1] <= 0.5


@pytest.fixture
def small(model, rows):
    FastModel.get_peft_model(model, r=4)

    def make(**settings):
        defaults = {"per_device_train_batch_size": 2, "max_steps": 2, "hold_out": 0, "warmup_steps": 0}
        trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(**{**defaults, **settings}))
        events = []
        trainer.subscribe(events.append, shows_progress=True)
        return trainer, events

    return make


def texts(events):
    return [event.text for event in events if isinstance(event, Notice)]


def test_a_run_that_was_told_nothing_is_kept_in_runs_here(small):
    trainer, _ = small()
    result = trainer.train()
    assert result.run_folder == Path.cwd() / "runs" / "run-001"
    assert [path.name for path in checkpoint_folders(result.run_folder)] == ["step-00002"]


def test_checkpoints_by_the_clock_change_no_number_of_the_run(small):
    trainer, events = small(max_steps=4, save_minutes=1e-9, save_steps=None, save_total_limit=None)
    losses = [step.loss for step in trainer.train().steps]
    assert [event.step for event in events if isinstance(event, CheckpointSaved)][:1] == [1]
    again, _ = small(max_steps=4, save_minutes=None)
    first = again.train(resume_from_checkpoint="runs/run-001/checkpoints/step-00001")
    assert [step.loss for step in first.steps] == losses


def test_a_run_that_writes_nothing_says_so(small):
    trainer, events = small(output_dir=None)
    result = trainer.train()
    assert result.run_folder is None
    assert [text for text in texts(events) if "output_dir is None" in text and "save_pretrained" in text]
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_a_place_where_nothing_can_be_written_is_named_before_the_first_step(small, place):
    Path("taken").write_text("a file of somebody's")
    trainer, events = small(output_dir=place)
    with pytest.raises(OSError, match=r"Runs cannot be kept in .*taken.* Set TrainingConfig\.output_dir to"):
        trainer.train()
    assert not events
    assert Path("taken").read_text() == "a file of somebody's"


def test_a_folder_may_be_a_path_and_below_home(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert small(output_dir=Path("~/kept"))[0].train().run_folder == tmp_path / "kept" / "run-001"


def test_a_folder_stays_where_it_was_when_the_notebook_moves(small, tmp_path, monkeypatch):
    trainer, _ = small()
    here = Path.cwd()
    trainer.add_step_callback(lambda step, *_: monkeypatch.chdir(tmp_path))
    folder = trainer.train().run_folder
    assert folder.parent.parent == here
    assert [path.name for path in checkpoint_folders(folder)] == ["step-00002"]


def test_checkpoints_that_are_large_are_told_with_the_room_there_is(tmp_path):
    assert said_of_the_disk(tmp_path, 10_000_000, 2) == []
    [said] = said_of_the_disk(tmp_path, 3_000_000_000, 2)
    assert "takes 3.0 GB, up to 3 of them at a time" in said
    [said] = said_of_the_disk(tmp_path, 3_000_000_000, None)
    assert "all of them are kept" in said


def test_what_a_checkpoint_takes_is_what_its_files_do_the_reference_among_them(tmp_path, tiny_folder):
    rows = [{"prompt": "The sky is", "chosen": " blue.", "rejected": f" a fox {n}."} for n in range(4)]
    model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=64, full_finetuning=True)
    args = TrainingConfig(max_steps=1, hold_out=0, output_dir=str(tmp_path))
    trainer = Trainer(model, train_dataset=rows, args=args, objective=DPO())
    folder = trainer.train().run_folder
    (checkpoint,) = checkpoint_folders(folder)
    files = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    run = trainer._run
    told = checkpoint_bytes(model.module, run._stepper.optimizer, args, run.reference.kept)
    assert told == pytest.approx(files, rel=0.05)  # the files name their tensors besides


@pytest.mark.parametrize("value", ["", 3, True])
def test_a_folder_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="output_dir is"):
        TrainingConfig(output_dir=value)
