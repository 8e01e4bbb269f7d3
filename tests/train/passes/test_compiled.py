"""train/passes/compiled.py: the compiled pass takes the plain one's steps, for few shapes, and says when it cannot."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.events import Notice
from tunebook.fast.forms import FORMS
from tunebook.models.families.text import TextFamily
from tunebook.models.tensors import flat
from tunebook.train.kept.checkpoint import ForeignCheckpoint
from tunebook.train.passes import compiled
from tunebook.train.passes.compiled import commonest_shapes, padded_count


def trained(folder, rows, *, dropout=0.2, resume=False, stop_at=None, adapt=None, **settings):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=dropout, **(adapt or {}))
    args = TrainingConfig(**{"max_steps": 6, "learning_rate": 5e-3, "gradient_accumulation_steps": 2, **settings})
    trainer = Trainer(model, train_dataset=rows, args=args)
    told = []
    trainer.subscribe(lambda event: told.append(event.text) if isinstance(event, Notice) else None)
    if stop_at is not None:
        trainer.add_step_callback(lambda step, *_: trainer.stop() if step == stop_at else None)
    trainer.train(resume_from_checkpoint=resume)
    weights = {name: np.array(value) for name, value in flat(model.module.trainable_parameters()).items()}
    return trainer, weights, told


def test_a_compiled_run_takes_the_steps_of_a_plain_one_dropout_and_noise_included(tiny_folder, rows):
    settings = {"neftune_noise_alpha": 5, "lr_scheduler_type": "cosine"}
    trainer, fast, _ = trained(tiny_folder, rows, compile=True, **settings)
    assert trainer._run._stepper._pass.compiled.compiled
    _, plain, _ = trained(tiny_folder, rows, compile=False, **settings)
    assert all(np.allclose(fast[name], plain[name], atol=1e-6) for name in plain)


def test_a_compiled_run_that_is_stopped_and_resumed_is_the_undisturbed_one_bit_for_bit(
    tiny_folder, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(compiled, "MOST_SHAPES", 2)  # so that compiled and plain passes take turns
    trainer, whole, _ = trained(tiny_folder, rows, compile=True, output_dir=str(tmp_path / "whole"))
    assert len(trainer._run._stepper._pass.compiled.compiled) == 2
    trained(tiny_folder, rows, compile=True, output_dir=str(tmp_path / "out"), stop_at=3)
    _, resumed, _ = trained(tiny_folder, rows, compile=True, output_dir=str(tmp_path / "out"), resume=True)
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)


def test_a_compiled_run_too_makes_logits_a_few_rows_at_a_time(tiny_folder, rows, monkeypatch):
    monkeypatch.setitem(FORMS, "cpu", replace(FORMS["cpu"], logit_bytes=1, logit_rows=16))
    _, fast, _ = trained(tiny_folder, rows, compile=True)
    _, plain, _ = trained(tiny_folder, rows, compile=False)
    assert all(np.allclose(fast[name], plain[name], atol=1e-6) for name in plain)


def test_no_more_shapes_are_compiled_than_the_limit(tiny_folder, rows, monkeypatch):
    monkeypatch.setattr(compiled, "MOST_SHAPES", 2)
    many = [
        {"messages": [{"role": "user", "content": "the " * length}, {"role": "assistant", "content": "dog " * length}]}
        for length in range(1, 40, 3)
    ]
    trainer, _, told = trained(tiny_folder, many, compile=True, per_device_train_batch_size=1, max_steps=7)
    run = trainer._run._stepper._pass.compiled
    assert len(commonest_shapes(trainer.train_rows, trainer.config, 128, trainer.objective)) == len(run.compiled) == 2
    assert told[-1].startswith("The pass was compiled for 2 shapes of batches; ")
    assert told[-1].endswith(f" {run.by_themselves} batches had others and were compiled by themselves.")
    assert 0 < run.by_themselves < 7 * 4


def test_a_run_tells_how_many_shapes_were_traced_for_its_passes(tiny_folder, rows, monkeypatch):
    traced, hidden = [], TextFamily.hidden

    def counted(self, module, batch):
        if module.training:
            traced.append(batch["tokens"].shape)
        return hidden(self, module, batch)

    monkeypatch.setattr(TextFamily, "hidden", counted)
    _, _, told = trained(tiny_folder, rows, compile=True, max_steps=8)
    said = re.fullmatch(r"The pass was compiled for (\d+) shapes of batches\.", told[-1])
    # A compiled pass is traced once for a shape, however many of its 16 batches have it.
    assert said
    assert int(said[1]) == len(traced) < 16


def test_the_sizes_are_two_an_octave_and_never_too_small():
    assert sorted({padded_count(count) for count in range(1, 1025)}) == [64, 96, 128, 192, 256, 384, 512, 768, 1024]
    assert all(count <= padded_count(count) < 1.51 * max(count, 43) for count in range(1, 5000))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputed_layers_are_compiled_unless_they_drop_and_then_it_is_said(tiny_folder, rows, dropout):
    adapt = {"use_gradient_checkpointing": True}
    _, fast, told = trained(tiny_folder, rows, compile=True, dropout=dropout, adapt=adapt)
    _, plain, _ = trained(tiny_folder, rows, dropout=dropout, adapt=adapt)
    assert all(np.allclose(fast[name], plain[name], atol=1e-6) for name in plain)
    said = [text for text in told if text.startswith("The pass is not compiled: gradient_checkpointing redraws")]
    assert len(said) == bool(dropout)
    assert all(text.endswith("set one off.") for text in said)


@pytest.mark.cpu("Metal needs no C++ compiler")
def test_without_a_compiler_the_run_goes_on_plainly_and_says_why(tiny_folder, rows, monkeypatch):
    monkeypatch.setattr(compiled.mx, "compile", lambda function: _failing)
    _, _, told = trained(tiny_folder, rows, compile=True, max_steps=1)
    assert any("The pass is not compiled: g++: not found." in text for text in told)


def _failing(*_):
    raise RuntimeError("g++: not found")


@pytest.mark.cpu
def test_left_open_a_pass_is_compiled_where_the_machines_forms_say_so(tiny_folder, rows, monkeypatch):
    trainer, plain, told = trained(tiny_folder, rows)
    assert trainer._run._stepper._pass.compiled is None
    monkeypatch.setitem(FORMS, "cpu", replace(FORMS["cpu"], compiled=True))
    trainer, fast, _ = trained(tiny_folder, rows)
    assert trainer._run._stepper._pass.compiled.compiled
    assert all(np.allclose(fast[name], plain[name], atol=1e-6) for name in plain)
    trainer, never, told = trained(tiny_folder, rows, compile=False)
    assert trainer._run._stepper._pass.compiled is None
    assert not any("compiled" in text for text in told)
    assert all(np.array_equal(never[name], plain[name]) for name in plain)


@pytest.mark.parametrize("asked", [False, True])
def test_a_run_in_which_it_is_left_open_goes_on_as_it_was_asked_for_before(tiny_folder, rows, tmp_path, asked):
    _, whole, _ = trained(tiny_folder, rows, compile=asked)
    trained(tiny_folder, rows, compile=asked, output_dir=str(tmp_path), stop_at=3)
    with pytest.raises(ForeignCheckpoint, match=f"compile: {asked} there, {not asked} here"):
        trained(tiny_folder, rows, compile=not asked, output_dir=str(tmp_path), resume=True)
    trainer, resumed, _ = trained(tiny_folder, rows, output_dir=str(tmp_path), resume=True)
    assert (trainer._run._stepper._pass.compiled is not None) == asked
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)
