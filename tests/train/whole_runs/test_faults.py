"""A GPU that fails at an evaluation of a run takes nothing: `bench/faults.py` draws hundreds of these."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.makers.failing_gpu import BROKEN, OUT_OF_MEMORY, WATCHDOG, Failing, digests, evaluations
from tests.makers.small_runs import recorded
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EndReason, StepEvent, Working
from tunebook.fast.forms import forms_for
from tunebook.machine.gpu_errors import gpu_fault
from tunebook.train.kept.checkpoint import checkpoint_folders, read_checkpoint
from tunebook.train.passes.candidates import as_plain
from tunebook.train.passes.compiled import why_not_here

STEPS = 4
# What is trained and how, and what fails. The last step is saved, then scored, and then sampled.
FAULTS = {
    "a micro-batch": ("lora", "adamw", Failing("train/step.py _passed", 3, 2, WATCHDOG, "numbers")),
    "the norm": ("full", "lion", Failing("train/step.py finish", 2, 1, BROKEN, "NaN")),
    "the first update": ("lora", "adamw", Failing("train/step.py _update", 0, 1, OUT_OF_MEMORY, "numbers")),
    "an update": ("full", "adafactor", Failing("train/step.py _update", 2, 1, BROKEN, "numbers")),
    "a score": ("lora", "muon", Failing("objectives/next_token.py <genexpr>", 2, 1, BROKEN, "NaN")),
    "the last sample": ("dora", "sgd", Failing("models/families/text.py generate", -1, 1, WATCHDOG, "NaN")),
}


def make(folder, rows, out, tuned, optim):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128, full_finetuning=tuned == "full")
    if tuned != "full":
        FastModel.get_peft_model(model, r=4, lora_dropout=0.1, use_dora=tuned == "dora")
    args = TrainingConfig(
        max_steps=STEPS,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        optim=optim,
        learning_rate=5e-3,
        warmup_steps=1,
        eval_steps=3,
        sample_steps=3,
        sample_max_tokens=3,
        save_steps=2,
        output_dir=str(out),
    )
    trainer = Trainer(model, train_dataset=rows, eval_dataset=rows[:2], args=args)
    trainer.subscribe(lambda event: None, shows_progress=True)
    return trainer


def state_of(trainer):
    return trainer._run._stepper.optimizer.state


def end_of(trainer, result):
    return (
        digests(trainer.loaded.module.parameters()),
        digests(state_of(trainer)),
        [(event.step, event.loss, event.grad_norm) for event in result.steps],
        [(event.step, event.loss) for event in result.evals],
        [(event.step, event.prompt, event.text) for event in result.samples],
    )


@pytest.mark.parametrize("what", FAULTS)
def test_a_gpu_that_fails_leaves_the_last_whole_step_and_the_run_goes_on_bit_for_bit(tiny_folder, rows, tmp_path, what):
    tuned, optim, fault = FAULTS[what]
    whole, after = make(tiny_folder, rows, tmp_path / "whole", tuned, optim), {}

    def look(event):
        if isinstance(event, StepEvent) or (isinstance(event, Working) and event.step == 1 and event.done == 1):
            step = event.step if isinstance(event, StepEvent) else 0
            after[step] = digests(whole.loaded.module.trainable_parameters()), digests(state_of(whole))

    whole.subscribe(look)
    with evaluations() as seen:
        expected = end_of(whole, whole.train())
    fault = replace(fault, nth=fault.nth % seen.places.count(fault.place))

    first = make(tiny_folder, rows, tmp_path / "out", tuned, optim)
    told = recorded(first)
    with evaluations(fault) as seen, pytest.raises((RuntimeError, MemoryError)):
        first.train()
    assert seen.failed == fault.times
    step = max((event.step for event in told if isinstance(event, StepEvent)), default=0)
    assert (digests(first.loaded.module.trainable_parameters()), digests(state_of(first))) == after[step]
    newest = checkpoint_folders(first._run.folder)[-1]
    assert newest.name == f"step-{step:05d}"
    saved = read_checkpoint(newest)
    assert (digests(saved.weights), digests(saved.optimizer_state)) == after[step]

    second = make(tiny_folder, rows, tmp_path / "out", tuned, optim)
    assert end_of(second, second.train(resume_from_checkpoint=True)) == expected


def test_a_micro_batch_the_watchdog_took_is_computed_once_more_though_its_arrays_were_never_written(
    tiny_folder, rows, tmp_path
):
    whole = make(tiny_folder, rows, tmp_path / "whole", "lora", "adamw")
    expected = end_of(whole, whole.train())
    trainer = make(tiny_folder, rows, tmp_path / "out", "lora", "adamw")
    with evaluations(Failing("train/step.py _passed", 3, 1, WATCHDOG, "NaN")) as seen:
        result = trainer.train()
    assert seen.failed == 1
    assert result.reason is EndReason.FINISHED
    assert end_of(trainer, result) == expected


@pytest.mark.parametrize("optim", ["adamw", "muon"])
def test_weights_lie_in_memory_after_a_resume_as_they_did_before(tiny_folder, rows, tmp_path, optim):
    """A product of a matrix that lies transposed has other last bits."""

    def lying(trainer):
        strides = {}

        def look(event):
            if isinstance(event, Working) and event.what == "training" and event.done == 1:
                weights = tree_flatten(trainer.loaded.module.trainable_parameters())
                strides[event.step] = {name: np.asarray(memoryview(array)).strides for name, array in weights}

        trainer.subscribe(look)
        return strides

    whole = make(tiny_folder, rows, tmp_path / "whole", "lora", optim)
    there = lying(whole)
    whole.train()
    first = make(tiny_folder, rows, tmp_path / "out", "lora", optim)
    first.add_step_callback(lambda step, *_: first.stop() if step == 2 else None)
    first.train()
    second = make(tiny_folder, rows, tmp_path / "out", "lora", optim)
    here = lying(second)
    second.train(resume_from_checkpoint=True)
    assert here[3] == there[3]


def test_a_gpu_that_fails_is_not_taken_for_one_that_cannot_compile():
    with (
        evaluations(Failing("train/passes/compiled.py why_not_here", said=BROKEN)),
        pytest.raises(RuntimeError) as said,
    ):
        why_not_here()
    assert gpu_fault(said.value) == "driver"


def test_a_gpu_that_fails_says_nothing_of_the_form_a_pass_is_computed_in(tiny_folder, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))  # nothing is proven yet
    trainer = make(tiny_folder, rows, tmp_path / "out", "lora", "adamw")
    with evaluations(Failing("train/passes/proof.py passed", 1, 1, OUT_OF_MEMORY, "NaN")) as seen:
        result = trainer.train()
    assert seen.failed == 1
    assert result.reason is EndReason.FINISHED
    assert trainer._run.progress.forms == as_plain(forms_for())


def test_a_failed_evaluation_spoils_what_it_computed_and_nothing_else():
    before, other = mx.ones(3), mx.zeros(2)
    mx.eval(before)
    view, new, waiting = before[1:], before * 2, other + 1
    with (
        evaluations(Failing("elsewhere", leaves="numbers")) as seen,
        pytest.raises(RuntimeError, match="Internal Error"),
    ):
        mx.eval(view, new)
    assert seen.failed == 1
    assert (before.tolist(), view.tolist(), waiting.tolist()) == ([1, 1, 1], [1, 1], [1, 1])
    assert new.tolist() == [3, 3, 3]
