"""A run folder, or a part of it, that is taken away in the middle: said once, and made anew with all of the run."""

import json
import shutil

import numpy as np
import pytest
from mlx.utils import tree_flatten

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import Notice, SampleEvent
from tunebook.runs.folder import (
    CONFIG_FILE,
    EVENTS_FILE,
    RATES_FILE,
    SAMPLES_FILE,
    event_log,
    load,
    new_run_folder,
    read_events,
)
from tunebook.runs.lock import LOCK_FILE, RunInUse, RunLock
from tunebook.train.kept.checkpoint import checkpoint_folders

SETTINGS = {
    "max_steps": 6,
    "save_steps": 2,
    "sample_steps": 2,
    "sample_max_tokens": 2,
    "sample_prompts": ("the",),
    "warmup_steps": 0,
    "per_device_train_batch_size": 2,
    "hold_out": 0,
}


@pytest.fixture
def trained(tiny_folder, rows, tmp_path):
    """A run in `tmp_path / "out"` in which `act(run_folder, step)` is called after each step."""

    def run(act=lambda folder, step: None, resume=None, name="out", **settings):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=4)
        args = TrainingConfig(**{**SETTINGS, "output_dir": str(tmp_path / name), **settings})
        trainer = Trainer(model, train_dataset=rows, args=args)
        said = []
        trainer.subscribe(
            lambda event: said.append(event.text) if isinstance(event, Notice) else None, shows_progress=True
        )
        trainer.add_step_callback(lambda step, *_: act(tmp_path / name / "run-001", step))
        result = trainer.train(resume_from_checkpoint=resume)
        weights = {name: np.array(one) for name, one in tree_flatten(model.module.trainable_parameters())}
        return result, said, weights

    return run


def is_whole(folder):
    """Whether a run folder tells of every step and sample, of what it was asked, and can be gone on from."""
    history = load(folder)
    assert history.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in history.samples] == [0, 2, 4, 6]
    assert len((folder / SAMPLES_FILE).read_text().splitlines()) == 4
    assert history.ended is not None
    assert history.started.step == 0
    assert json.loads((folder / CONFIG_FILE).read_text())["config"]["max_steps"] == 6
    return checkpoint_folders(folder)[-1].name == "step-00006"


def gone(folder):
    shutil.rmtree(folder)


def with_all_that_leads_to_it(folder):
    shutil.rmtree(folder.parent)


def moved(folder):
    folder.rename(folder.parents[1] / "elsewhere")


@pytest.mark.parametrize(("take", "at"), [(gone, 1), (with_all_that_leads_to_it, 3), (moved, 5)])
def test_a_folder_that_is_taken_away_is_said_once_and_made_anew(trained, tmp_path, take, at):
    result, said, weights = trained(lambda folder, step: take(folder) if step == at else None)
    about = [text for text in said if "out/run-001" in text]
    assert len(about) == 2
    assert "the folder of this run, is gone. Training goes on, and the next checkpoint makes it anew" in about[0]
    assert "is written again" in about[1]
    assert is_whole(tmp_path / "out" / "run-001")
    assert (tmp_path / "out" / "run-001").stat().st_mode & 0o777 == 0o700
    saved = checkpoint_folders(result.run_folder)[0]
    assert all(np.array_equal(one, weights[name]) for name, one in trained(resume=saved)[2].items())


def test_the_folder_made_anew_is_held_again(trained, tmp_path):
    refused = []

    def act(folder, step):
        if step == 1:
            shutil.rmtree(folder)
        if step == 3:
            with pytest.raises(RunInUse):
                RunLock(folder)
            refused.append(step)

    trained(act)
    assert refused == [3]
    RunLock(tmp_path / "out" / "run-001").release()


@pytest.mark.parametrize("name", [EVENTS_FILE, SAMPLES_FILE, CONFIG_FILE, RATES_FILE, LOCK_FILE, "checkpoints"])
def test_a_part_that_is_taken_away_comes_back(trained, tmp_path, name):
    def act(folder, step):
        if step == 3:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    _, said, _ = trained(act)
    assert not [text for text in said if "cannot" in text]
    if name == SAMPLES_FILE:  # what is in the log as well
        assert load(tmp_path / "out" / "run-001").samples[-1].step == 6
    else:
        assert is_whole(tmp_path / "out" / "run-001")


def test_a_folder_that_is_gone_at_a_resume_is_made_anew_with_the_steps_before(trained, tmp_path):
    trained(max_steps=6)
    shutil.rmtree(tmp_path / "out" / "run-001" / "checkpoints" / "step-00006")
    trained(lambda folder, step: shutil.rmtree(folder) if step == 5 else None, resume=True)
    assert load(tmp_path / "out" / "run-001").step.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_run_made_in_its_place_meanwhile_is_not_written_into(trained, tmp_path):
    others = []

    def act(folder, step):
        if step == 3:
            shutil.rmtree(folder)
            assert new_run_folder(folder.parent) == folder
            others.append(RunLock(folder))
            event_log(folder)(Notice(step=0, text="of another run"))

    result, said, _ = trained(act)
    others[0].release()
    assert [event.text for event in read_events(result.run_folder)] == ["of another run"]
    assert checkpoint_folders(result.run_folder) == []
    assert any("another run has its place now" in text and "save_pretrained" in text for text in said)
    assert len([text for text in said if "log of this run cannot be written" in text]) == 1


def test_samples_are_told_of_once_in_a_log_made_anew(tmp_path):
    told = []
    keep = event_log(tmp_path, told.append, told)
    for step in range(4):
        if step == 2:
            (tmp_path / EVENTS_FILE).unlink()
            (tmp_path / SAMPLES_FILE).unlink()
        told.append(SampleEvent(step=step, prompt="a", text="b", seconds=1.0))
        keep(told[-1])
    assert list(read_events(tmp_path)) == told
    assert len((tmp_path / SAMPLES_FILE).read_text().splitlines()) == 4
