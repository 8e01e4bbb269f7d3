"""Nothing is lost: a run goes on from its checkpoint as if it had never ended, or is refused with the reason."""

import json
import os
import random
import signal

import mlx.core as mx
import pytest

from tests.makers.processes.program import run_program
from tests.makers.small_runs import SETTINGS, make, same, weights
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EndReason, Notice, StepEvent
from tunebook.runs.folder import read_events
from tunebook.train.kept.checkpoint import FOLDER, ForeignCheckpoint, TornCheckpoint, checkpoint_folders

CHILD = """
import json, os, signal, sys
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.train.kept import checkpoint
folder, out, settings, rows, resume, kill = json.loads(sys.argv[1])
model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=0.2)
trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(**settings, output_dir=out))
def at(event):
    if kill and kill[0] == "step" and type(event).__name__ == "Working" and (event.step, event.done) == tuple(kill[1:]):
        os.kill(os.getpid(), signal.SIGKILL)
trainer.subscribe(at)
if kill and kill[0] == "save":
    real = checkpoint.save_tensors
    def dying(path, arrays):
        if os.path.basename(os.path.dirname(path)) == f"step-{kill[1]:05d}" and path.name == kill[2]:
            path.write_bytes(b"half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, arrays)
    checkpoint.save_tensors = dying
result = trainer.train(resume_from_checkpoint=resume)
model.save_pretrained(out + "/lora")
print(json.dumps([step.loss for step in result.steps]))
"""


def run_child(folder, out, rows, *, resume=None, kill=None, **settings):
    arguments = json.dumps([str(folder), str(out), {**SETTINGS, **settings}, rows, resume, kill])
    return run_program(CHILD, arguments)


def trials():
    """Where the process is killed: in the middle of a step, or while a checkpoint is being written, by the seed.

    Every epoch is three steps of two micro-batches. TUNEBOOK_KILL_TRIALS=20 runs more of them than the suite does.
    """
    generator = random.Random(0)
    places = [["save", 6, "optimizer.safetensors"], ["save", 9, "weights.safetensors"]]
    places += [["step", step, batch] for step in range(4, 13) for batch in (1, 2)]
    generator.shuffle(places)
    return places[: int(os.environ.get("TUNEBOOK_KILL_TRIALS", "5"))]


@pytest.mark.parametrize("kill", trials(), ids=lambda kill: "-".join(map(str, kill)))
def test_a_killed_process_resumes_to_the_very_weights_and_the_log_of_an_undisturbed_run(
    tiny_folder, rows, tmp_path, straight, kill
):
    killed = run_child(tiny_folder, tmp_path / "out", rows, kill=kill)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run_child(tiny_folder, tmp_path / "out", rows, resume="latest")
    assert resumed.returncode == 0, resumed.stderr
    losses, expected = straight
    assert json.loads(resumed.stdout.splitlines()[-1]) == losses
    assert same(mx.load(str(tmp_path / "out" / "lora" / "adapters.safetensors")), expected)
    steps = [event for event in read_events(tmp_path / "out" / "run-001") if isinstance(event, StepEvent)]
    assert [event.step for event in steps] == list(range(1, 13))
    elapsed = [event.elapsed for event in steps]
    assert elapsed == sorted(elapsed)


@pytest.mark.parametrize("optim", ["adamw", "adafactor", "lion", "sgd", "muon"])
def test_a_run_stopped_and_resumed_is_the_undisturbed_one_with_every_optimizer(tiny_folder, rows, tmp_path, optim):
    whole = make(tiny_folder, rows, tmp_path / "whole", optim=optim, max_steps=6)
    expected = whole.train()
    first = make(tiny_folder, rows, tmp_path / "out", optim=optim, max_steps=6)
    first.add_step_callback(lambda step, *_: first.stop() if step == 4 else None)
    assert first.train().reason is EndReason.STOPPED
    second = make(tiny_folder, rows, tmp_path / "out", optim=optim, max_steps=6)
    result = second.train(resume_from_checkpoint=True)
    assert [step.loss for step in result.steps] == [step.loss for step in expected.steps]
    assert [step.num_tokens for step in result.steps] == [step.num_tokens for step in expected.steps]
    assert same(weights(second), weights(whole))


def test_all_weights_of_a_model_resume_to_those_of_an_undisturbed_run(tiny_folder, rows, tmp_path):
    def whole_model(out):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128, full_finetuning=True)
        args = TrainingConfig(**{**SETTINGS, "max_steps": 4, "output_dir": str(out)})
        trainer = Trainer(model, train_dataset=rows, args=args)
        trainer.subscribe(lambda event: None)
        return trainer

    undisturbed = whole_model(tmp_path / "whole")
    undisturbed.train()
    first = whole_model(tmp_path / "out")
    first.add_step_callback(lambda step, *_: first.stop() if step == 2 else None)
    first.train()
    second = whole_model(tmp_path / "out")
    second.train(resume_from_checkpoint=True)
    assert same(weights(second), weights(undisturbed))


def test_a_checkpoint_of_another_run_is_refused_with_every_difference(tiny_folder, rows, tmp_path):
    make(tiny_folder, rows, tmp_path, max_steps=3).train()
    other = make(tiny_folder, rows[:-1], tmp_path, max_steps=3, learning_rate=1e-3, seed=7, dropout=0.0)
    before = weights(other)
    with pytest.raises(ForeignCheckpoint) as refused:
        other.train(resume_from_checkpoint=True)
    for difference in (
        "training rows",
        "learning_rate: 0.005 there, 0.001 here",
        "seed: 3407 there, 7 here",
        "adapters",
    ):
        assert difference in str(refused.value)
    assert "max_steps" not in str(refused.value)
    assert same(weights(other), before)


def test_settings_that_only_look_and_save_may_change(tiny_folder, rows, tmp_path):
    make(tiny_folder, rows, tmp_path, max_steps=3).train()
    changed = make(tiny_folder, rows, tmp_path, max_steps=3, save_steps=1, eval_dataset=rows[:2], eval_steps=1)
    assert changed.train(resume_from_checkpoint=True).reason is EndReason.FINISHED


@pytest.mark.parametrize("damage", ["cut", "missing", "state"])
def test_a_torn_checkpoint_is_passed_over_with_a_sentence(tiny_folder, rows, tmp_path, straight, damage):
    first = make(tiny_folder, rows, tmp_path / "out")
    first.add_step_callback(lambda step, *_: first.stop() if step == 7 else None)
    folder = checkpoint_folders(first.train().run_folder)[-1]
    match damage:
        case "cut":
            (folder / "optimizer.safetensors").write_bytes((folder / "optimizer.safetensors").read_bytes()[:-8])
        case "missing":
            (folder / "weights.safetensors").unlink()
        case "state":
            (folder / "state.json").write_text("{")
    if damage != "state":
        with pytest.raises(TornCheckpoint, match="step-00007"):
            make(tiny_folder, rows, tmp_path / "out").train(resume_from_checkpoint=folder)
    second = make(tiny_folder, rows, tmp_path / "out")
    events = []
    second.subscribe(events.append)
    second.train(resume_from_checkpoint=True)
    assert any(
        "step-00007" in event.text and "one before" in event.text for event in events if isinstance(event, Notice)
    )
    assert events[0].step == 6
    assert same(weights(second), straight[1])


def test_one_checkpoint_can_be_named(tiny_folder, rows, tmp_path, straight):
    result = make(tiny_folder, rows, tmp_path / "out", save_total_limit=None).train()
    second = make(tiny_folder, rows, tmp_path / "out")
    second.train(resume_from_checkpoint=result.run_folder / FOLDER / "step-00003")
    assert same(weights(second), straight[1])


def test_only_the_newest_checkpoints_are_kept(tiny_folder, rows, tmp_path):
    result = make(tiny_folder, rows, tmp_path, save_total_limit=2).train()
    assert [path.name for path in checkpoint_folders(result.run_folder)] == ["step-00009", "step-00012"]


def test_nothing_to_resume_is_an_error_with_a_place(tiny_folder, rows, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from in"):
        make(tiny_folder, rows, tmp_path).train(resume_from_checkpoint=True)
