"""Nothing is lost: however a run ends, it goes on from its checkpoint as if it had never ended."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import CheckpointSaved, CommandReceived, EndReason, EvalEvent, Notice, StepEvent, Working
from tunebook.runs.folder import STOP_FILE, read_events
from tunebook.train.kept.checkpoint import FOLDER, ForeignCheckpoint, TornCheckpoint, checkpoint_folders

# Everything a resumed step could get wrong: dropout, noise, accumulation, clipping, a schedule, a shuffled order.
SETTINGS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 12,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "max_grad_norm": 0.3,
    "neftune_noise_alpha": 5,
    "save_steps": 3,
}


def make(folder, rows, out, eval_dataset=None, dropout=0.2, **settings):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=dropout)
    args = TrainingConfig(**{**SETTINGS, "output_dir": str(out), **settings})
    trainer = Trainer(model, train_dataset=rows, eval_dataset=eval_dataset, args=args)
    trainer.subscribe(lambda event: None)
    return trainer


def weights(trainer):
    return {name: np.array(array) for name, array in tree_flatten(trainer.loaded.module.trainable_parameters())}


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def straight(tiny_folder, rows, tmp_path_factory):
    """(losses, final weights) of the run nobody disturbed."""
    trainer = make(tiny_folder, rows, tmp_path_factory.mktemp("straight"))
    return [step.loss for step in trainer.train().steps], weights(trainer)


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
    return subprocess.run([sys.executable, "-c", CHILD, arguments], capture_output=True, text=True, check=False)


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


def test_full_tuning_resumes_too(tiny_folder, rows, tmp_path):
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


# Ways to end


def test_a_termination_ends_the_run_with_a_checkpoint_and_a_result(tiny_folder, rows, tmp_path):
    trainer = make(tiny_folder, rows, tmp_path)
    trainer.add_step_callback(lambda step, *_: signal.raise_signal(signal.SIGTERM) if step == 5 else None)
    result = trainer.train()
    assert result.reason is EndReason.STOPPED
    assert [path.name for path in checkpoint_folders(result.run_folder)][-1] == "step-00005"


def test_a_stop_file_ends_the_run_and_is_taken_away(tiny_folder, rows, tmp_path):
    trainer = make(tiny_folder, rows, tmp_path)
    stop = tmp_path / "run-001" / STOP_FILE
    trainer.add_step_callback(lambda step, *_: stop.touch() if step == 2 else None)
    result = trainer.train()
    assert result.reason is EndReason.STOPPED
    assert len(result.steps) == 2
    assert not stop.exists()


def test_an_interrupt_saves_before_the_run_ends(tiny_folder, rows, tmp_path, straight):
    first = make(tiny_folder, rows, tmp_path / "out")
    first.add_step_callback(lambda step, *_: signal.raise_signal(signal.SIGINT) if step == 4 else None)
    result = first.train()
    assert result.reason is EndReason.INTERRUPTED
    second = make(tiny_folder, rows, tmp_path / "out")
    second.train(resume_from_checkpoint=result.run_folder)
    assert same(weights(second), straight[1])


def test_an_error_in_a_step_leaves_a_checkpoint_to_go_on_from(tiny_folder, rows, tmp_path, straight):
    first = make(tiny_folder, rows, tmp_path / "out")
    collate, calls = first.loaded.family.collate, []

    def unreadable(some, width):
        calls.append(1)
        if len(calls) > 10:
            raise OSError("this row cannot be read")
        return collate(some, width)

    first.loaded.family.collate = unreadable
    with pytest.raises(OSError, match="cannot be read"):
        first.train()
    second = make(tiny_folder, rows, tmp_path / "out")
    second.train(resume_from_checkpoint=True)
    assert same(weights(second), straight[1])


def test_a_disk_that_fills_up_is_reported_and_training_goes_on(tiny_folder, rows, tmp_path, straight):
    """In a child whose files may not grow past 30 kB while step 6 is saved: what a quota or a full disk does to it."""
    child = """
import json, resource, signal, sys
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import CheckpointSaved, Notice, StepEvent
folder, out, settings, rows = json.loads(sys.argv[1])
model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=0.2)
trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(**settings, output_dir=out))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
told, (_, most) = [], resource.getrlimit(resource.RLIMIT_FSIZE)
def watch(event):
    if isinstance(event, StepEvent):
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000 if event.step == 6 else most, most))
    if isinstance(event, Notice):
        told.append(event.text)
    if isinstance(event, CheckpointSaved):
        told.append(event.step)
trainer.subscribe(watch)
result = trainer.train()
model.save_pretrained(out + "/lora")
print(json.dumps([told, result.reason]))
"""
    arguments = json.dumps([str(tiny_folder), str(tmp_path), SETTINGS, rows])
    done = subprocess.run([sys.executable, "-c", child, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, reason = json.loads(done.stdout.splitlines()[-1])
    said = next(text for text in told if isinstance(text, str) and "No checkpoint was written at step 6" in text)
    assert "Free some space" in said
    assert [step for step in told if isinstance(step, int)] == [3, 9, 12]
    assert reason == EndReason.FINISHED
    assert same(mx.load(str(tmp_path / "lora" / "adapters.safetensors")), straight[1])


OUT_OF_MEMORY = {
    "metal": "[METAL] Command buffer execution failed: Insufficient Memory "
    "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "metal buffer": "[metal::malloc] Attempting to allocate 9663676416 bytes which is greater than the maximum allowed "
    "buffer size of 8589934592 bytes.",
    "cuda": "cudaMallocAsync(&data, size, stream) failed: out of memory",
}


@pytest.mark.parametrize("said", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_when_memory_runs_out_the_run_is_saved_and_the_error_says_what_to_change(
    tiny_folder, rows, tmp_path, straight, said
):
    """The CPU build has no such error to provoke; these are the words of MLX 0.32 on the other backends."""
    first = make(tiny_folder, rows, tmp_path / "out")
    collate = first.loaded.family.collate

    def exhausted(some, width):
        if first._run.step == 7:
            raise RuntimeError(said)
        return collate(some, width)

    first.loaded.family.collate = exhausted
    with pytest.raises(
        MemoryError, match=r"per_device_train_batch_size \(now 2\) and raise gradient_acc.*checkpointing=T"
    ):
        first.train()
    second = make(tiny_folder, rows, tmp_path / "out")
    second.train(resume_from_checkpoint=True)
    assert same(weights(second), straight[1])


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
    assert [event.step for event in events if isinstance(event, EvalEvent)] == [0, 5, 12]
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


# What may be resumed


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


# The best model


def worsening(folder, rows, out, **settings):
    """A run that learns rows away from what its held-out rows want: each score is worse than the one before."""
    noise = [{"text": "zq " * (4 + number)} for number in range(8)]
    return make(
        folder,
        noise,
        out,
        eval_dataset=[{"text": "the quick brown fox jumps over the lazy dog"}],
        eval_steps=2,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        warmup_steps=0,
        dropout=0.0,
        **settings,
    )


def test_early_stopping_ends_the_run_when_patience_is_lost(tiny_folder, rows, tmp_path):
    result = worsening(tiny_folder, rows, tmp_path, early_stopping_patience=2).train()
    losses = [score.loss for score in result.evals]
    assert result.reason is EndReason.EARLY_STOPPED
    assert min(losses) == losses[-3]
    assert len(result.steps) < 12


def test_the_best_weights_are_put_back_at_the_end_also_after_a_resume(tiny_folder, rows, tmp_path):
    trainer = worsening(tiny_folder, rows, tmp_path / "a", load_best_model_at_end=True)
    result = trainer.train()
    best = min(result.evals, key=lambda score: score.loss)
    assert best.loss < result.evals[-1].loss
    assert trainer.evaluate().loss == pytest.approx(best.loss, abs=1e-6)

    first = worsening(tiny_folder, rows, tmp_path / "b", load_best_model_at_end=True)
    first.add_step_callback(lambda step, *_: first.stop() if step == 8 else None)
    first.train()
    second = worsening(tiny_folder, rows, tmp_path / "b", load_best_model_at_end=True)
    second.train(resume_from_checkpoint=True)
    assert same(weights(second), weights(trainer))


@pytest.mark.parametrize("setting", [{"load_best_model_at_end": True}, {"early_stopping_patience": 2}])
def test_waiting_for_a_score_nobody_measures_is_refused(tiny_folder, rows, tmp_path, setting):
    with pytest.raises(ValueError, match="need held-out rows"):
        make(tiny_folder, rows, tmp_path, **setting)
    with pytest.raises(ValueError, match="need eval_steps"):
        make(tiny_folder, rows, tmp_path, eval_dataset=rows[:2], **setting)
