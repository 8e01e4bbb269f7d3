"""A run proves its passes on its own rows before the first step, and on a GPU times them; both on the CPU build."""

import json
import math

import mlx.core as mx
import pytest

from tests.makers.small_runs import same, weights
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import Notice, Working
from tunebook.fast import attention
from tunebook.fast.forms import forms_for
from tunebook.machine import runtime
from tunebook.models.tensors import flat, random_key
from tunebook.train.passes import kept_choice, self_test
from tunebook.train.passes.compiled import why_not_here

LONG = [
    {"messages": [{"role": "user", "content": "the " * 60}, {"role": "assistant", "content": f"{word} dog " * 60}]}
    for word in ("quick", "brown", "fox", "lazy")
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, so that nothing is known from before."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(kept_choice.runtime, "cache_folder", lambda: folder)
    folder.mkdir()
    return folder / kept_choice.FOLDER


def run(folder, rows=LONG, *, dropout=0.0, steps=2, out=None, resume=False, losses=None):
    """(trainer, notices, what it was seen waiting for) of a run; the loss of each step is added to `losses`."""
    losses = [] if losses is None else losses
    model, _ = FastModel.from_pretrained(folder, max_seq_length=256)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=dropout)
    args = TrainingConfig(
        max_steps=steps, learning_rate=5e-3, hold_out=0, output_dir=None if out is None else str(out), warmup_steps=0
    )
    trainer = Trainer(model, train_dataset=rows, args=args)
    notices, waited = [], []
    trainer.subscribe(lambda event: notices.append(event.text) if isinstance(event, Notice) else None)
    trainer.subscribe(lambda event: waited.append(event.what) if isinstance(event, Working) else None)
    losses.extend(step.loss for step in trainer.train(resume_from_checkpoint=resume).steps)
    return trainer, notices, waited


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_run_that_was_tested_is_bit_for_bit_one_that_was_not(tiny_folder, dropout):
    tested, said, waited = run(tiny_folder, dropout=dropout)
    assert "testing" in waited
    again, _, waited = run(tiny_folder, dropout=dropout)  # what came of it is kept
    assert "testing" not in waited
    assert same(weights(tested), weights(again))
    assert tested._run._stepper.forms == forms_for()
    assert not any("form" in text for text in said)


def test_weights_random_state_and_mode_are_as_they_were_after_a_test(tiny_folder):
    trainer, _, _ = run(tiny_folder, steps=1)
    loaded, stepper = trainer.loaded, trainer._run._stepper
    before, key = dict(flat(loaded.module.parameters())), random_key()
    loaded.module.eval()
    settled = settle(trainer)
    assert settled.is_proven
    assert not loaded.module.training
    assert all(mx.array_equal(value, before[name]) for name, value in flat(loaded.module.parameters()).items())
    assert mx.array_equal(random_key(), key)
    assert stepper.forms == settled.forms


@pytest.mark.cpu("on Metal attention is left to MLX, and no block is wrong")
def test_a_form_that_is_wrong_here_is_found_and_left_out_and_that_is_said(tiny_folder, monkeypatch):
    blocks = attention.attention_in_blocks
    monkeypatch.setattr(attention, "attention_in_blocks", lambda *args, **options: 1.5 * blocks(*args, **options))
    found, expected = [], []
    trainer, said, _ = run(tiny_folder, losses=found)
    assert trainer._run._stepper.forms.attention == "whole"
    (text,) = [text for text in said if "from the plain pass" in text]
    assert text.endswith("In its place: attention: whole.")
    monkeypatch.setattr(attention, "attention_in_blocks", blocks)
    run(tiny_folder, losses=expected)
    assert found == pytest.approx(expected, rel=1e-5)


def test_what_was_kept_and_is_damaged_is_settled_anew(tiny_folder, cache):
    run(tiny_folder)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for damage in (b"", whole[:-9], whole.replace(b"losses", b"loses", 1), b"[]"):
        file.write_bytes(damage)
        _, _, waited = run(tiny_folder)
        assert "testing" in waited
        assert file.read_bytes() == whole


def test_rows_that_give_no_finite_loss_settle_nothing(tiny_folder, cache):
    trainer, _, _ = run(tiny_folder, steps=1)
    name, value = next(iter(flat(trainer.loaded.module.trainable_parameters()).items()))
    trainer.loaded.module.load_weights([(name, mx.full(value.shape, math.nan))], strict=False)
    settled = settle(trainer)
    assert settled.tried == ()
    assert settled.forms == forms_for()


def test_a_gpu_that_fails_in_the_test_leaves_the_usual_forms_and_that_is_said(tiny_folder, cache, monkeypatch):
    def failing(*_):
        raise RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory")

    monkeypatch.setattr(self_test, "passed", failing)
    trainer, said, _ = run(tiny_folder)
    assert trainer._run._stepper.forms == forms_for()
    assert sum("was not tried on the first rows: [METAL] Command buffer" in text for text in said) == 1
    assert not cache.exists()  # so that the next run tries again


@pytest.fixture
def metal(monkeypatch):
    """The kit takes the backend for Metal; what it then computes, MLX's CPU build computes."""
    if (reason := why_not_here()) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(runtime, "backend", lambda: "metal")


@pytest.mark.usefixtures("metal")
def test_on_a_gpu_every_form_is_proven_and_timed_and_the_fastest_is_used(tiny_folder, monkeypatch):
    monkeypatch.setattr(self_test, "SECONDS", 60.0)
    trainer, _, _ = run(tiny_folder, steps=1)
    trainer._run._stepper.use(forms_for())
    settled = settle(trainer)
    assert settled.timed_tokens > 100
    assert [one for one in settled.tried if one.why_not] == []
    assert all(one.seconds is not None and one.distance is not None and one.distance < 0.01 for one in settled.tried)
    quickest = min(settled.tried, key=lambda one: one.seconds)
    usual = settled.tried[0]
    assert settled.forms == forms_for() or quickest.seconds < self_test.GAIN * usual.seconds


@pytest.mark.usefixtures("metal")
def test_what_a_gpu_run_began_in_is_what_it_is_resumed_in_whatever_the_cache_says_by_then(
    tiny_folder, tmp_path, cache, monkeypatch
):
    monkeypatch.setattr(self_test, "GAIN", 100.0)  # so that the last that was tried is used
    monkeypatch.setattr(self_test, "ROOM", 100.0)
    monkeypatch.setattr(self_test, "SECONDS", 60.0)
    first, said, _ = run(tiny_folder, out=tmp_path / "runs", steps=4)
    forms = first._run._stepper.forms
    assert forms != forms_for()
    assert sum("forms of the pass were proven and timed; used: " in text for text in said) == 1
    for file in cache.iterdir():
        file.unlink()
    checkpoint = max((tmp_path / "runs" / "run-001" / "checkpoints").iterdir())
    assert json.loads((checkpoint / "state.json").read_text())["progress"]["forms"]["backend"] == "metal"
    again, _, waited = run(tiny_folder, out=tmp_path / "runs", steps=4, resume=True)
    assert again._run._stepper.forms == forms
    assert "testing" not in waited


def settle(trainer):
    stepper, rows = trainer._run._stepper, trainer._run.plan.feed.known
    testing = self_test.settle(trainer.loaded, stepper.forms, rows[:2], stepper.pass_in)
    while True:
        try:
            next(testing)
        except StopIteration as end:
            return end.value
