"""earlier_runs.py: what an interrupted run left is said when the next one starts in its place, once and truly."""

import json
import os
import signal
import time

import numpy as np
import pytest

from tests.makers.processes.program import run_program
from tests.makers.small_runs import weights
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EndReason, Notice
from tunebook.runs.folder import CONFIG_FILE, EVENTS_FILE, keep_config, new_run_folder, read_events
from tunebook.runs.lock import RunLock
from tunebook.train.kept.checkpoint import ForeignCheckpoint
from tunebook.train.kept.earlier_runs import said_of_earlier_runs

SETTINGS = {"max_steps": 6, "warmup_steps": 0, "per_device_train_batch_size": 2, "hold_out": 0, "learning_rate": 1e-2}

CHILD = """
import json, os, signal, sys
from tunebook import FastModel, Trainer, TrainingConfig
folder, settings, rows, kill = json.loads(sys.argv[1])
model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
FastModel.get_peft_model(model, r=4)
trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(**settings))
trainer.add_step_callback(lambda step, *_: os.kill(os.getpid(), signal.SIGKILL) if step == kill else None)
trainer.train()
"""


@pytest.fixture
def run(tiny_folder, rows, tmp_path):
    """Starts or resumes a run in `tmp_path`, and gives the trainer, its result and what it said."""

    def begun(stop_at=None, resume=None, interrupt_at=None, **settings):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=4)
        args = TrainingConfig(**{**SETTINGS, "output_dir": str(tmp_path), **settings})
        trainer = Trainer(model, train_dataset=rows, args=args)
        said = []
        trainer.subscribe(
            lambda event: said.append(event.text) if isinstance(event, Notice) else None, shows_progress=True
        )

        def look(step, *_):
            if step == stop_at:
                trainer.stop()
            if step == interrupt_at:
                signal.raise_signal(signal.SIGINT)

        trainer.add_step_callback(look)
        return trainer, trainer.train(resume_from_checkpoint=resume), said

    return begun


@pytest.fixture
def killed(tiny_folder, rows, tmp_path):
    """Has a process train in `tmp_path` until it is killed after a step."""

    def at(step, **settings):
        given = json.dumps([str(tiny_folder), {**SETTINGS, "output_dir": str(tmp_path), **settings}, rows, step])
        done = run_program(CHILD, given)
        assert done.returncode == -signal.SIGKILL, done.stderr

    return at


def broke_off(said):
    return [text for text in said if "broke off" in text]


def test_a_killed_run_is_named_with_its_steps_and_the_call_that_is_said_goes_on_with_it(run, killed, tmp_path):
    killed(5, save_steps=3)
    _, result, said = run()
    [sentence] = broke_off(said)
    assert "run-001 broke off at step 5 of 6" in sentence
    assert "from step 3, its last checkpoint," in sentence
    call = f'trainer.train(resume_from_checkpoint="{tmp_path / "run-001"}")'
    assert call in sentence
    assert sentence in [event.text for event in read_events(result.run_folder) if isinstance(event, Notice)]
    resumed, again, said = run(resume=str(tmp_path / "run-001"))
    assert again.run_folder == tmp_path / "run-001"
    assert not broke_off(said)
    assert all(np.array_equal(array, weights(resumed)[name]) for name, array in weights(run()[0]).items())


def test_a_run_that_had_no_checkpoint_yet_is_named_too_with_when_it_fell_silent(run, killed):
    killed(2)
    [sentence] = broke_off(run()[2])
    assert "run-001 broke off at step 2 of 6" in sentence
    assert time.strftime("%Y-%m-%d") in sentence
    assert "no checkpoint to go on from" in sentence
    assert "resume_from_checkpoint" not in sentence


def test_a_run_that_broke_off_is_named_by_the_next_one_alone(run):
    run(interrupt_at=2)
    assert len(broke_off(run()[2])) == 1
    assert broke_off(run()[2]) == []


def test_a_run_that_was_resumed_and_broke_off_again_is_named_again(run, tmp_path):
    run(interrupt_at=2)
    run()
    run(resume=tmp_path / "run-001", interrupt_at=4)
    [sentence] = broke_off(run()[2])
    assert "run-001 broke off at step 4 of 6" in sentence


@pytest.mark.parametrize("how", [{}, {"stop_at": 2}])
def test_runs_that_ended_as_they_were_meant_to_are_not_named(run, how):
    run(**how)
    assert broke_off(run()[2]) == []


def test_a_run_of_other_settings_is_named_with_what_to_set_as_it_was(run):
    run(interrupt_at=2, learning_rate=1e-3, seed=7)
    [sentence] = broke_off(run()[2])
    assert "set what differs from this run as it was (learning_rate, seed)" in sentence


def test_a_run_that_still_goes_on_is_not_named(run, tmp_path):
    run(interrupt_at=2)
    with RunLock(tmp_path / "run-001"):
        assert broke_off(run()[2]) == []


DAMAGES = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "binary": lambda file: file.write_bytes(os.urandom(5000)),
    "of a newer version": lambda file: file.write_text('{"event": "dream", "step": 3}\n'),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [EVENTS_FILE, CONFIG_FILE])
def test_a_damaged_log_or_config_is_borne_and_the_checkpoint_found(run, tmp_path, damage, name):
    run(interrupt_at=3)
    DAMAGES[damage](tmp_path / "run-001" / name)
    new = new_run_folder(tmp_path)
    [sentence] = said_of_earlier_runs(new, lambda identity: [])
    assert "run-001 broke off at step 3" in sentence
    assert "\n" not in sentence


def test_of_hundreds_of_runs_a_few_are_looked_at(run, tmp_path):
    run(interrupt_at=2)
    log = (tmp_path / "run-001" / EVENTS_FILE).read_bytes()
    for _ in range(300):
        folder = new_run_folder(tmp_path)
        keep_config(folder, {}, {})
        (folder / EVENTS_FILE).write_bytes(log * 20)
    began = time.process_time()
    said = said_of_earlier_runs(new_run_folder(tmp_path), lambda identity: [])
    assert time.process_time() - began < 1.5  # of the processor: other processes share the cores
    assert [text.split()[0] for text in said] == ["run-301"]


# The newest run that is this one


def test_true_goes_on_with_the_newest_run_of_the_same_kind_and_names_those_it_passes_over(run, tmp_path):
    run(stop_at=2)
    run(stop_at=3, learning_rate=1e-3)
    run(stop_at=3, seed=7)
    trainer, result, said = run(resume=True)
    assert result.run_folder == tmp_path / "run-001"
    assert [event.step for event in result.steps] == [1, 2, 3, 4, 5, 6]
    [sentence] = [text for text in said if "run-003" in text]
    assert "run-003, run-002 differ (run-003: seed: 7 there, 3407 here)" in sentence
    assert "\n" not in sentence
    assert all(np.array_equal(array, weights(trainer)[name]) for name, array in weights(run()[0]).items())


def test_where_every_run_is_another_the_newest_is_refused_with_its_differences(run, tmp_path):
    run(stop_at=2, learning_rate=1e-3)
    run(stop_at=2, seed=7)
    with pytest.raises(ForeignCheckpoint, match="seed: 7 there, 3407 here") as refused:
        run(resume=True)
    assert "learning_rate" not in str(refused.value)
    assert "run-002" in str(refused.value)


def test_a_run_that_is_named_is_not_exchanged_for_another(run, tmp_path):
    run(stop_at=2)
    run(stop_at=2, seed=7)
    with pytest.raises(ForeignCheckpoint, match="seed"):
        run(resume=tmp_path / "run-002")


def test_a_run_of_another_kind_that_goes_on_meanwhile_keeps_nobody_out(run, tmp_path):
    run(stop_at=2)
    run(stop_at=2, seed=7)
    with RunLock(tmp_path / "run-002"):
        assert run(resume=True)[1].run_folder == tmp_path / "run-001"


def test_a_newer_run_that_left_no_checkpoint_is_passed_over_with_a_sentence(run, killed, tmp_path):
    run(stop_at=2)
    killed(1)
    _, result, said = run(resume=True)
    assert result.run_folder == tmp_path / "run-001"
    assert any("run-002 left no checkpoint" in text for text in said)


def test_a_finished_run_gives_its_weights_back_without_a_step(run):
    first, *_ = run()
    again, result, _ = run(resume=True)
    assert result.reason is EndReason.FINISHED
    assert all(np.array_equal(array, weights(again)[name]) for name, array in weights(first).items())
