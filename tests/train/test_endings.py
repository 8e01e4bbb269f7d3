"""Ways to end: whatever ends a run, the last whole step is on the disk, and the run goes on from it bit for bit."""

import json
import signal

import mlx.core as mx
import pytest

from tests.makers.processes.program import run_program
from tests.makers.small_runs import SETTINGS, make, same, weights
from tunebook.events import EndReason, Notice
from tunebook.runs.folder import STOP_FILE
from tunebook.train import step
from tunebook.train.kept.checkpoint import checkpoint_folders


def test_a_termination_ends_the_run_with_a_checkpoint_and_then_the_process(tiny_folder, rows, tmp_path):
    trainer, events = make(tiny_folder, rows, tmp_path), []
    trainer.subscribe(events.append)
    trainer.add_step_callback(lambda step, *_: signal.raise_signal(signal.SIGTERM) if step == 5 else None)
    with pytest.raises(SystemExit):  # else a script would export what is trained by half
        trainer.train()
    assert events[-1].reason is EndReason.STOPPED
    assert [path.name for path in checkpoint_folders(tmp_path / "run-001")][-1] == "step-00005"
    where = f"It is kept in {tmp_path / 'run-001'}, and goes on with trainer.train(resume_from_checkpoint=True)."
    assert where in events[-1].message


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
    done = run_program(child, arguments)
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


class TakenAway:
    """mlx.core, whose `eval` of a micro-batch at `step` fails as Metal's watchdog has it, so many `times`."""

    def __init__(self, trainer, at_step, times):
        self.trainer, self.at_step, self.left = trainer, at_step, times

    def __getattr__(self, name):
        return getattr(mx, name)

    def eval(self, *arrays):
        mx.eval(*arrays)
        if len(arrays) == 2 and self.trainer._run.step == self.at_step and self.left:
            self.left -= 1
            raise RuntimeError(
                "[METAL] Command buffer execution failed: Impacting Interactivity "
                "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)."
            )


def test_a_micro_batch_the_system_took_the_gpu_from_is_computed_again_bit_for_bit(
    tiny_folder, rows, tmp_path, straight, monkeypatch
):
    trainer, said = make(tiny_folder, rows, tmp_path), []
    trainer.subscribe(lambda event: said.append(event.text) if isinstance(event, Notice) else None)
    monkeypatch.setattr(step, "mx", TakenAway(trainer, 4, times=1))
    result = trainer.train()
    assert [event.loss for event in result.steps] == straight[0]
    assert same(weights(trainer), straight[1])
    assert sum("computed once more" in text for text in said) == 1


def test_a_gpu_that_is_taken_away_twice_ends_the_run_which_says_what_helps_and_goes_on(
    tiny_folder, rows, tmp_path, straight, monkeypatch
):
    first = make(tiny_folder, rows, tmp_path)
    monkeypatch.setattr(step, "mx", TakenAway(first, 4, times=2))
    with pytest.raises(RuntimeError, match=r"display sleep.*AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1.*resume_from_checkpoint"):
        first.train()
    monkeypatch.setattr(step, "mx", mx)
    assert checkpoint_folders(first._run.folder)[-1].name == "step-00004"
    second = make(tiny_folder, rows, tmp_path)
    second.train(resume_from_checkpoint=True)
    assert same(weights(second), straight[1])
