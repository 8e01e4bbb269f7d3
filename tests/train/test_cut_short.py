"""What an ending cuts short, a look or the telling of an event, is made whole by the run that goes on from there.

However a run was ended and wherever, the one that is resumed has the record of the undisturbed run, bit for bit:
steps, scores, samples, the choice of the best weights, and the files they are kept in.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mlx.utils import tree_flatten

import tunebook
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import EndReason, EvalEvent, Event, SampleEvent, StepEvent, Working
from tunebook.runs import listeners
from tunebook.runs.folder import SAMPLES_FILE, read_events
from tunebook.train import loop
from tunebook.train.kept import saves

SETTINGS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 4,
    "learning_rate": 5e-3,
    "warmup_steps": 0,
    "eval_steps": 2,
    "sample_steps": 2,
    "sample_max_tokens": 3,
    "sample_prompts": ["Say something.", "And again.", "Say something."],
    "save_steps": 1,
    "load_best_model_at_end": True,
}


def make(folder, rows, **settings):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_dropout=0.2)
    args = TrainingConfig(**{**SETTINGS, **settings})
    trainer = Trainer(model, train_dataset=rows[:8], eval_dataset=rows[8:], args=args)
    trainer.subscribe(lambda event: None, shows_progress=True)
    return trainer


def record(trainer, folder):
    """All that the undisturbed run and one that was resumed have to agree on, once in memory and once in the files."""

    def plain(events):
        events = list(events)
        return {
            "steps": [(e.step, e.loss, e.lr, e.grad_norm, e.num_tokens) for e in events if isinstance(e, StepEvent)],
            "scores": [(e.step, e.loss) for e in events if isinstance(e, EvalEvent)],
            "samples": [(e.step, e.prompt, e.text) for e in events if isinstance(e, SampleEvent)],
        }

    kept = [json.loads(line) for line in (folder / SAMPLES_FILE).read_text().splitlines()]
    return {
        "told": plain(trainer._model.run_events),
        "log": plain(read_events(folder)),
        SAMPLES_FILE: [(sample["step"], sample["prompt"], sample["text"]) for sample in kept],
        "weights": {
            name: np.array(array).tobytes()
            for name, array in tree_flatten(trainer.loaded.module.trainable_parameters())
        },
    }


@pytest.fixture(scope="module")
def undisturbed(tiny_folder, rows, tmp_path_factory):
    trainer = make(tiny_folder, rows, output_dir=str(tmp_path_factory.mktemp("whole")))
    return record(trainer, trainer.train().run_folder)


def ended(trainer):
    """Why a run ended, also one behind which the process was to end (SIGTERM)."""
    with contextlib.suppress(SystemExit):
        trainer.train()
    return trainer._model.run_events[-1].reason


def resumed(folder, rows):
    """The run in `runs`, gone on with to its end."""
    again = make(folder, rows)
    result = again.train(resume_from_checkpoint=True)
    assert result.reason is EndReason.FINISHED
    return record(again, result.run_folder)


class At:
    """Does something when it hears the `count`th event of a kind after a step."""

    def __init__(self, does, kind: type[Event], step: int, count: int, **fields):
        self._does, self._kind, self._step, self._left, self._fields = does, kind, step, count, fields

    def __call__(self, event: Event) -> None:
        if isinstance(event, self._kind) and event.step == self._step and self._fields.items() <= vars(event).items():
            self._left -= 1
            if self._left == 0:
                self._does()


ENDS = {
    "a stop": lambda trainer: trainer.stop(),
    "a termination": lambda _: signal.raise_signal(signal.SIGTERM),
    "an interrupt": lambda _: signal.raise_signal(signal.SIGINT),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("kind", "count", "fields"),
    [
        (Working, 1, {"what": "sampling"}),
        (SampleEvent, 1, {}),
        (Working, 5, {"what": "sampling"}),
        (SampleEvent, 3, {}),
    ],
    ids=["in the first", "after the first", "in the second", "after the last"],
)
def test_a_sampling_that_was_cut_short_is_made_whole(tiny_folder, rows, undisturbed, end, kind, count, fields):
    trainer = make(tiny_folder, rows)
    trainer.subscribe(At(lambda: ENDS[end](trainer), kind, 2, count, **fields))
    assert ended(trainer) in (EndReason.STOPPED, EndReason.INTERRUPTED)
    assert resumed(tiny_folder, rows) == undisturbed


def test_a_sampling_someone_asked_for_is_made_whole_too(tiny_folder, rows, undisturbed):
    trainer = make(tiny_folder, rows)
    trainer.subscribe(At(lambda: trainer.send("sample"), StepEvent, 1, 1))
    trainer.subscribe(At(trainer.stop, SampleEvent, 1, 1))
    trainer.train()
    found = resumed(tiny_folder, rows)
    assert [prompt for step, prompt, _ in found["told"]["samples"] if step == 1] == SETTINGS["sample_prompts"]
    others = [sample for sample in found["told"]["samples"] if sample[0] != 1]
    assert others == undisturbed["told"]["samples"]
    assert found["weights"] == undisturbed["weights"]


def test_a_sampling_that_cannot_be_is_said(tiny_folder, rows):
    trainer = make(tiny_folder, rows)
    said = []
    trainer.subscribe(At(lambda: trainer.send("sample"), SampleEvent, 2, 3))
    trainer.subscribe(lambda event: said.append(vars(event).get("text", "")))
    trainer.train()
    assert "Asked to sample, but samples of step 2 were taken already." in said


@pytest.mark.parametrize("end", ENDS)
def test_an_evaluation_that_was_cut_short_is_made_whole(tiny_folder, rows, undisturbed, end):
    trainer = make(tiny_folder, rows)
    trainer.subscribe(At(lambda: ENDS[end](trainer), Working, 2, 1, what="evaluating"))
    ended(trainer)
    assert resumed(tiny_folder, rows) == undisturbed


# An interrupt between what is done and its telling

BETWEEN = {
    "the update of a step": (loop.RunProgress, "advance", 2),
    "a score": (loop.RunProgress, "add_eval", 2),
    "the best weights": (loop.KeptWeights, "keep_best", 2),
    "a checkpoint": (saves, "save_checkpoint", 2),
    "an event": (listeners.Audience, "_record", 12),
    "a line of the log": (listeners.Audience, "_record", 30),
}


@pytest.mark.parametrize("what", BETWEEN)
def test_what_is_done_is_told_though_an_interrupt_falls_between(tiny_folder, rows, undisturbed, monkeypatch, what):
    place, name, count = BETWEEN[what]
    whole, calls = getattr(place, name), []

    def interrupted(*arguments, **named):
        calls.append(1)
        result = whole(*arguments, **named)
        if len(calls) == count:
            signal.raise_signal(signal.SIGINT)
        return result

    trainer = make(tiny_folder, rows)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, interrupted)
        result = trainer.train()
    assert result.reason is EndReason.INTERRUPTED
    counted = trainer._run.progress
    log = list(read_events(result.run_folder))
    assert [event.step for event in log if isinstance(event, StepEvent)] == list(range(1, counted.step + 1))
    assert [event for event in log if isinstance(event, EvalEvent)] == counted.evals
    assert list(trainer._model.run_events) == log
    assert resumed(tiny_folder, rows) == undisturbed


# An interrupt at any line

KIT = Path(tunebook.__file__).parent
BESIDE = ("trainer.py", "tokens/feed.py", *(f"machine/{name}.py" for name in ("interrupts", "private", "scratch")))
# What a run goes through between two passes of the model, where an interrupt could tear something.
INTERRUPTED = {str(path) for wing in ("runs", "train") for path in (KIT / wing).rglob("*.py")}
INTERRUPTED |= {str(KIT / name) for name in BESIDE}


class Lines:
    """Counts the lines of INTERRUPTED that a block executes, and presses at one of them."""

    def __init__(self, at: tuple[str, int] | None = None, count: int = 1):
        self.seen: Counter[tuple[str, int]] = Counter()
        self._at, self._count = at, count

    def __enter__(self):
        sys.settrace(self._enters)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def _enters(self, frame, what, _):
        return self._runs if frame.f_code.co_filename in INTERRUPTED else None

    def _runs(self, frame, what, _):
        if what == "line":
            line = (Path(frame.f_code.co_filename).name, frame.f_lineno)
            self.seen[line] += 1
            if line == self._at and self.seen[line] == self._count:
                signal.raise_signal(signal.SIGINT)
        return self._runs


@pytest.fixture(scope="module")
def broken_off(tiny_folder, rows, tmp_path_factory):
    """A folder of runs whose only one was stopped in the samples of step 2, and the lines that go on with it."""
    out = tmp_path_factory.mktemp("broken") / "runs"
    first = make(tiny_folder, rows, output_dir=str(out))
    first.subscribe(At(first.stop, SampleEvent, 2, 1))
    first.train()
    copy = shutil.copytree(out, out.parent / "copy")
    second = make(tiny_folder, rows, output_dir=str(copy))
    with Lines() as lines:
        second.train(resume_from_checkpoint=True)
    assert {Path(name).name for name in BESIDE} <= {name for name, _ in lines.seen}
    return out, lines.seen


@pytest.mark.parametrize("draw", range(int(os.environ.get("TUNEBOOK_INTERRUPTED_LINES", "8"))))
def test_an_interrupt_at_any_line_of_a_run_loses_nothing(tiny_folder, rows, undisturbed, broken_off, draw):
    """TUNEBOOK_INTERRUPTED_LINES=2000 draws as many lines, and so nearly each of them."""
    out, seen = broken_off
    generator = random.Random(draw)
    line = generator.choice(sorted(seen))
    count = generator.randint(1, seen[line])
    shutil.copytree(out, "runs")
    trainer = make(tiny_folder, rows)
    with Lines(line, count), contextlib.suppress(KeyboardInterrupt):
        trainer.train(resume_from_checkpoint=True)
    found = resumed(tiny_folder, rows)
    assert found == undisturbed, (line, count)
    assert not list(Path("runs").rglob("*.partial-*"))
