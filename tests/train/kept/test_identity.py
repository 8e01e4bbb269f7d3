"""identity.py: a run goes on only on the base it began on, known by what it holds and not by where it lies."""

import json
import shutil

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tests.makers.small_runs import weights
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.models import base_digest
from tunebook.models.base_digest import digest_of
from tunebook.runs.folder import run_folders
from tunebook.train.kept.checkpoint import STATE, ForeignCheckpoint, checkpoint_folders
from tunebook.train.kept.identity import BASE, FILES, base_of, differences, identity_of


@pytest.fixture
def base(tmp_path):
    return tiny_model_folder(tmp_path / "base")


def trainer_on(folder, rows, out=None, prepare=lambda model: None, adapted=True, **options):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=64, **options)
    prepare(model)
    if adapted:
        FastModel.get_peft_model(model, r=2)
    args = TrainingConfig(max_steps=4, save_steps=1, hold_out=0, output_dir=None if out is None else str(out))
    trainer = Trainer(model, train_dataset=rows, args=args)
    trainer.subscribe(lambda event: None, shows_progress=True)
    return trainer


def identity(trainer):
    base = base_of(trainer.loaded)
    return identity_of(
        trainer.loaded, trainer.config, trainer.data.feed, trainer.max_seq_length, trainer.objective, base=base
    )


def one_number(model):
    """A base that was tuned elsewhere, as little as can be: the last bit of one number of one norm."""
    norm = model.module.model.layers[1].input_layernorm
    bits = norm.weight.view(mx.uint32)
    bits[3] = bits[3] ^ 1
    norm.weight = bits.view(mx.float32)


def groups_of_32(model):
    nn.quantize(model.module, group_size=32, bits=4)


def changed(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


OTHERS = {
    "a number of a norm": {"prepare": one_number},
    "4 bits": {"load_in_4bit": True},
    "8 bits": {"load_in_8bit": True},
    "4 bits in groups of 32": {"prepare": groups_of_32},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
}


@pytest.mark.float32
def test_every_base_but_the_same_is_another(base, rows):
    first = identity(trainer_on(base, rows))
    assert differences(first, identity(trainer_on(base, rows))) == []
    others = {name: identity(trainer_on(base, rows, **other)) for name, other in OTHERS.items()}
    for name, other in others.items():
        assert any(line.startswith("  base: ") for line in differences(first, other)), name
    assert len({other[BASE] for other in others.values()}) == len(OTHERS)
    assert "tensors in float32 and 4 bits" in others["4 bits"][BASE]


@pytest.mark.parametrize("settings", [{"rope_theta": 5e5}, {"rms_norm_eps": 1e-3}], ids=str)
def test_a_setting_that_decides_numbers_makes_another_base_and_a_name_does_not(base, rows, settings):
    first = identity(trainer_on(base, rows))
    changed(base, transformers_version="9.9", _name_or_path="/elsewhere")
    assert differences(first, identity(trainer_on(base, rows))) == []
    changed(base, **settings)
    assert len(differences(first, identity(trainer_on(base, rows)))) == 1


def stopped(folder, rows, out, **options):
    trainer = trainer_on(folder, rows, out, **options)
    trainer.add_step_callback(lambda step, *_: trainer.stop() if step == 2 else None)
    trainer.train()


@pytest.mark.float32
def test_other_weights_of_the_same_size_at_the_same_path_are_refused(base, rows, tmp_path):
    stopped(base, rows, tmp_path / "out")
    shutil.rmtree(base)
    tiny_model_folder(base, seed=1)
    other = trainer_on(base, rows, tmp_path / "out")
    before = weights(other)
    with pytest.raises(ForeignCheckpoint, match=r"base: '\d+ tensors in float32, .* there"):
        other.train(resume_from_checkpoint=True)
    assert all(np.array_equal(before[name], array) for name, array in weights(other).items())


def test_a_base_that_was_moved_is_the_same_base(base, rows, tmp_path):
    whole = trainer_on(base, rows, tmp_path / "whole")
    whole.train()
    stopped(base, rows, tmp_path / "out")
    base.rename(tmp_path / "moved")
    moved = trainer_on(tmp_path / "moved", rows, tmp_path / "out")
    moved.train(resume_from_checkpoint=True)
    assert all(np.array_equal(weights(whole)[name], array) for name, array in weights(moved).items())


def test_adapters_that_are_trained_further_go_on_whatever_they_held_at_the_start(base, rows, tmp_path):
    model, _ = FastModel.from_pretrained(base, max_seq_length=64)
    FastModel.get_peft_model(model, r=2)
    model.save_pretrained(tmp_path / "lora")
    stopped(tmp_path / "lora", rows, tmp_path / "out", adapted=False)
    again = trainer_on(tmp_path / "lora", rows, tmp_path / "out", adapted=False)
    again.train(resume_from_checkpoint=True)
    whole = trainer_on(tmp_path / "lora", rows, tmp_path / "whole", adapted=False)
    whole.train()
    assert all(np.array_equal(weights(whole)[name], array) for name, array in weights(again).items())


def test_a_checkpoint_of_version_0_1_is_compared_by_what_it_knows(base, rows, tmp_path):
    stopped(base, rows, tmp_path / "out")
    for folder in checkpoint_folders(run_folders(tmp_path / "out")[0]):
        document = json.loads((folder / STATE).read_text())
        identity = {name: value for name, value in document["identity"].items() if name not in (BASE, "save_minutes")}
        old = {"identity": identity, "progress": document["progress"], "sha256": document["sha256"]}
        (folder / STATE).write_text(json.dumps(old))
    trainer_on(base, rows, tmp_path / "out").train(resume_from_checkpoint=True)
    base.rename(tmp_path / "moved")
    there = {"model": "m", FILES: "a"}
    assert len(differences(there, {"model": "n", FILES: "b"})) == 2
    assert differences({**there, BASE: "1"}, {"model": "n", FILES: "b", BASE: "1"}) == []


def test_a_model_folder_that_is_gone_by_now_keeps_no_run_from_beginning(base, rows, tmp_path):
    trainer = trainer_on(base, rows, tmp_path / "out")
    shutil.rmtree(base)
    assert len(trainer.train().steps) == 4


# The digest


def test_every_kind_of_array_has_a_digest_of_its_name_type_shape_and_content(monkeypatch):
    a = mx.arange(24, dtype=mx.uint32)
    alike = [
        {"a": a},
        {"b": a},
        {"a": a.reshape(4, 6)},
        {"a": a.reshape(6, 4)},
        {"a": a.view(mx.float32)},
        {"a": a.view(mx.bfloat16)},
        {"a": a.view(mx.uint8)},
        {"a": a.reshape(4, 6).T},
        {"a": mx.zeros((0,), dtype=mx.uint32)},
        {"a": mx.array(True)},
        {"a": mx.array(1.0)},
        {"a": a[:12], "b": a[12:]},
        {"a": mx.concatenate([a[12:], a[:12]])},
    ]
    digests = [digest_of(arrays) for arrays in alike]
    assert len(set(digests)) == len(alike)
    assert digest_of({"a": mx.array(np.arange(24, dtype=np.uint32))}) == digests[0]
    monkeypatch.setattr(base_digest, "AT_ONCE", 1)
    assert [digest_of(arrays) for arrays in alike] == digests
    monkeypatch.setattr(base_digest, "PIECE_BYTES", 32)  # also where a tensor is shared out
    swapped = {"a": mx.concatenate([a[8:16], a[:8], a[16:]])}
    assert digest_of(swapped) != digest_of({"a": a})


def test_a_resume_reads_the_weights_of_its_base_once(base, rows, tmp_path, monkeypatch):
    trainer_on(base, rows, tmp_path / "runs").train()
    asked = []
    monkeypatch.setattr("tunebook.train.kept.identity.digest_of", lambda arrays: asked.append(1) or digest_of(arrays))
    trainer_on(base, rows, tmp_path / "runs").train(resume_from_checkpoint=True)
    assert len(asked) == 1
