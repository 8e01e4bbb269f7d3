"""However often a run is interrupted, and wherever: it saves, it tells its end to everyone, and one can still leave."""

import asyncio
import signal
from pathlib import Path

import numpy as np
import pytest
from mlx.utils import tree_flatten

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EndReason, RunEnded, SampleEvent, StepEvent, Working
from tunebook.machine.interrupts import held_back
from tunebook.runs.ending_interrupts import Interrupts
from tunebook.runs.folder import read_events
from tunebook.train.kept import checkpoint
from tunebook.train.kept.checkpoint import checkpoint_folders
from tunebook.train.kept.snapshots import KeptWeights

SETTINGS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 6,
    "learning_rate": 5e-3,
    "warmup_steps": 0,
    "eval_steps": 2,
    "sample_steps": 2,
    "sample_max_tokens": 2,
    "load_best_model_at_end": True,
}


def make(folder, rows, **settings):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_dropout=0.2)
    args = TrainingConfig(**{**SETTINGS, **settings})
    trainer = Trainer(model, train_dataset=rows[:8], eval_dataset=rows[8:], args=args)
    events = []
    trainer.subscribe(events.append, shows_progress=True)
    return trainer, events


def weights(trainer):
    return {name: np.array(array) for name, array in tree_flatten(trainer.loaded.module.trainable_parameters())}


@pytest.fixture(scope="module")
def undisturbed(tiny_folder, rows, tmp_path_factory):
    """(losses, scores, weights at the end)"""
    trainer, _ = make(tiny_folder, rows, output_dir=str(tmp_path_factory.mktemp("whole")))
    result = trainer.train()
    return [step.loss for step in result.steps], [score.loss for score in result.evals], weights(trainer)


def press(times=1):
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


def trained(trainer):
    """How a run ended, or the interrupt that rose from it."""
    try:
        return trainer.train().reason
    except KeyboardInterrupt:
        return "rises"


def at(trainer, kind, step, action, **fields):
    """Have `action` called when a listener hears such an event of `step`."""

    def heard(event):
        if isinstance(event, kind) and event.step == step and all(getattr(event, k) == v for k, v in fields.items()):
            action()

    trainer.subscribe(heard)


PRESSED_AT = {
    "a step": (StepEvent, 5, {}),
    "a micro-batch": (Working, 5, {"what": "training", "done": 1}),
    "an evaluation": (Working, 4, {"what": "evaluating"}),
    "a sample": (SampleEvent, 4, {}),
    "the start": (Working, 0, {"what": "evaluating"}),
}


@pytest.mark.parametrize("where", PRESSED_AT)
def test_a_second_interrupt_while_saving_loses_nothing(tiny_folder, rows, undisturbed, monkeypatch, where):
    trainer, events = make(tiny_folder, rows)
    kind, step, fields = PRESSED_AT[where]
    at(trainer, kind, step, press, **fields)
    whole, armed = checkpoint.save_tensors, [2]

    def interrupted(path, arrays):
        press(armed.pop() if armed else 0)
        whole(path, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", interrupted)
        assert trained(trainer) == "rises"  # the second was meant for more than the run
    ended = events[-1]
    assert isinstance(ended, RunEnded)
    assert ended.reason is EndReason.INTERRUPTED
    assert [path.name for path in checkpoint_folders(Path("runs/run-001"))][-1] == f"step-{ended.step:05d}"
    again, _ = make(tiny_folder, rows)
    result = again.train(resume_from_checkpoint=True)
    losses, scores, expected = undisturbed
    assert [step.loss for step in result.steps] == losses
    assert [score.loss for score in result.evals] == scores
    assert all(np.array_equal(expected[name], array) for name, array in weights(again).items())


def test_an_interrupt_of_an_ending_that_nobody_asked_for_is_answered_by_it(tiny_folder, rows, undisturbed):
    trainer, _ = make(tiny_folder, rows)
    at(trainer, RunEnded, 6, press)
    told_last = []
    trainer.subscribe(told_last.append)
    result = trainer.train()
    assert result.reason is EndReason.FINISHED
    assert isinstance(told_last[-1], RunEnded)
    assert isinstance(list(read_events(result.run_folder))[-1], RunEnded)
    assert all(np.array_equal(undisturbed[2][name], array) for name, array in weights(trainer).items())


def test_an_interrupt_between_saving_and_the_best_weights_puts_them_back_all_the_same(
    tiny_folder, rows, undisturbed, monkeypatch
):
    trainer, _ = make(tiny_folder, rows)
    put_back = KeptWeights.put_best_back

    def interrupted(self, *args, **kwargs):
        press()
        return put_back(self, *args, **kwargs)

    monkeypatch.setattr(KeptWeights, "put_best_back", interrupted)
    assert trained(trainer) is EndReason.FINISHED
    assert all(np.array_equal(undisturbed[2][name], array) for name, array in weights(trainer).items())


def test_a_listener_that_raises_an_interrupt_keeps_no_other_from_hearing(tiny_folder, rows):
    trainer, _ = make(tiny_folder, rows)

    def raises():
        raise KeyboardInterrupt

    at(trainer, StepEvent, 3, raises)
    at(trainer, RunEnded, 3, raises)
    heard = []
    trainer.subscribe(heard.append)
    assert trained(trainer) == "rises"
    assert [event.step for event in heard if isinstance(event, StepEvent)] == [1, 2, 3]
    assert isinstance(heard[-1], RunEnded)


def test_terminations_are_heard_as_one_stop_and_then_the_process_ends(tiny_folder, rows):
    trainer, events = make(tiny_folder, rows)
    at(trainer, StepEvent, 3, lambda: [signal.raise_signal(signal.SIGTERM) for _ in range(2)])
    at(trainer, RunEnded, 3, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        trainer.train()
    assert ended.value.code == 143
    assert events[-1].reason is EndReason.STOPPED
    assert [path.name for path in checkpoint_folders(Path("runs/run-001"))] == ["step-00003"]


def test_a_handler_of_the_programs_own_is_told_of_a_termination_behind_the_run(tiny_folder, rows):
    trainer, events = make(tiny_folder, rows)
    at(trainer, StepEvent, 3, lambda: signal.raise_signal(signal.SIGTERM))
    told = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append((number, type(events[-1]))))
    try:
        assert trainer.train().reason is EndReason.STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [(signal.SIGTERM, RunEnded)]


def test_an_interrupt_after_a_failure_does_not_hide_it(tiny_folder, rows, monkeypatch):
    trainer, events = make(tiny_folder, rows)

    def fails():
        monkeypatch.setattr(trainer._run._stepper, "add", lambda *_, **__: [][0])

    at(trainer, StepEvent, 2, fails)
    at(trainer, RunEnded, 2, press)
    with pytest.raises(IndexError):
        trainer.train()
    assert events[-1].reason is EndReason.FAILED
    assert [path.name for path in checkpoint_folders(Path("runs/run-001"))] == ["step-00002"]


@pytest.mark.parametrize("again", [0, 1])
def test_a_cancelled_cell_that_is_cancelled_again_ends_in_its_own_way(tiny_folder, rows, again):
    trainer, events = make(tiny_folder, rows)

    async def cell():
        task = asyncio.ensure_future(trainer.train_async())
        at(trainer, StepEvent, 3, task.cancel)
        if again:
            at(trainer, RunEnded, 3, task.cancel)
        return await task

    if again:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cell())
    else:
        assert asyncio.run(cell()).reason is EndReason.INTERRUPTED
    assert isinstance(events[-1], RunEnded)
    assert [path.name for path in checkpoint_folders(Path("runs/run-001"))] == ["step-00003"]


def test_the_handler_from_before_is_back_when_the_run_is_over(tiny_folder, rows):
    before = signal.getsignal(signal.SIGINT)
    trainer, _ = make(tiny_folder, rows)
    at(trainer, StepEvent, 2, press)
    trainer.train()
    assert signal.getsignal(signal.SIGINT) is before


def test_after_ten_seconds_an_ending_that_hangs_can_be_left(capfd):
    now = [0.0]

    def hanging():
        with Interrupts(lambda: now[0]) as interrupts:
            interrupts.hold()
            press(5)
            now[0] = 9.9
            press()
            now[0] = 10.1
            press()
            pytest.fail("nobody could leave")

    with pytest.raises(KeyboardInterrupt):
        hanging()
    assert "once more after 10 seconds" in capfd.readouterr().err


def test_a_handler_that_raises_nothing_hears_every_interrupt_of_a_run_that_goes_on():
    heard, before = [], signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with Interrupts() as interrupts:
            press(3)
            assert len(heard) == 3
            interrupts.hold()
            press(3)
            assert len(heard) == 3
        assert len(heard) == 4  # the ending answered one, the others are one wish
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_held_back_in_a_step_is_one_interrupt_of_the_run():
    done = []

    def step():
        with held_back():
            press(2)
            done.append("whole")

    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            step()
        interrupts.hold(ended_the_run=True)
    assert done == ["whole"]


# An evaluation that the undisturbed run would not have made


def stopped_and_resumed(folder, rows, step, *, command=None, **settings):
    trainer, events = make(folder, rows, **settings)
    if command:
        at(trainer, StepEvent, 1, lambda: trainer.send(command))
    at(trainer, StepEvent, step, trainer.stop)
    trainer.train()
    again, events = make(folder, rows, **settings)
    return again, again.train(resume_from_checkpoint=True), events


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_resume_scores_and_samples_where_the_undisturbed_run_does(tiny_folder, rows, undisturbed, step):
    """At step 2 the stop came before the score that was due, which is made up for."""
    _, result, _ = stopped_and_resumed(tiny_folder, rows, step)
    assert [score.step for score in result.evals] == [0, 2, 4, 6]
    assert [score.loss for score in result.evals] == undisturbed[1]
    assert sorted({sample.step for sample in result.samples}) == [0, 2, 4, 6]
    assert len(result.samples) == 8


def test_a_score_that_was_asked_for_decides_nothing(tiny_folder, rows):
    """The rows are unlearnt, so that the first score is the best: one that was asked for would end the run earlier."""
    bad = {"learning_rate": 30.0, "lr_scheduler_type": "constant", "early_stopping_patience": 2}
    _, plain, _ = stopped_and_resumed(tiny_folder, rows, 2, **bad)
    _, asked, _ = stopped_and_resumed(tiny_folder, rows, 2, command="evaluate", **bad)
    assert [score.step for score in asked.evals] == [0, 1, *[score.step for score in plain.evals[1:]]]
    assert (asked.reason, asked.steps[-1].step) == (plain.reason, plain.steps[-1].step)
