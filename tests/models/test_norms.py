"""models/norms.py: trained norms are float32 and nothing downstream of them is."""

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.models.tensors import flat

TOKENS = mx.array([[5, 17, 99, 4, 250, 301, 7]])
ARCHITECTURES = ("llama", "qwen3", "gemma3", "phi3")


def norms_of(model):
    return {name: value for name, value in flat(model.module.parameters()).items() if "norm" in name}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trained_norms_are_float32_and_every_activation_keeps_the_models_type(tmp_path, architecture):
    folder = tiny_model_folder(tmp_path, architecture)
    model, _ = FastModel.from_pretrained(folder, dtype="bfloat16", full_finetuning=True)
    others = {name: value for name, value in flat(model.module.parameters()).items() if "norm" not in name}
    assert {value.dtype for value in norms_of(model).values()} == {mx.float32}
    assert {value.dtype for value in others.values()} == {mx.bfloat16}
    assert model.module["model"](TOKENS).dtype == mx.bfloat16
    assert model.module(TOKENS).dtype == mx.bfloat16


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_norm_gives_the_root_mean_square_formula_with_its_float32_weights(tmp_path, architecture):
    folder = tiny_model_folder(tmp_path, architecture)
    model, _ = FastModel.from_pretrained(folder, dtype="bfloat16", full_finetuning=True)
    norm = model.module["model"]["norm"]
    norm.weight = mx.array(np.linspace(0.0, 1.003, 64), mx.float32)  # steps that bfloat16 does not have
    x = mx.random.normal((3, 64)).astype(mx.bfloat16)
    weight = np.array(norm.weight, np.float64) + (1.0 if architecture == "gemma3" else 0.0)
    wide = np.array(x.astype(mx.float32), np.float64)
    eps = 1e-6 if architecture in ("qwen3", "gemma3") else 1e-5
    expected = wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + eps) * weight
    assert np.array_equal(
        np.array(norm(x).astype(mx.float32)),
        np.array(mx.array(expected, mx.float32).astype(mx.bfloat16).astype(mx.float32)),
    )


def test_a_norm_that_is_not_trained_stays_as_it_was_loaded(tiny_folder):
    model, _ = FastModel.from_pretrained(tiny_folder, dtype="bfloat16")
    FastModel.get_peft_model(model, r=4, modules_to_save=["input_layernorm"])
    kinds = {name.split(".")[-2]: value.dtype for name, value in norms_of(model).items()}
    assert kinds == {"input_layernorm": mx.float32, "post_attention_layernorm": mx.bfloat16, "norm": mx.bfloat16}


def test_another_model_keeps_its_own_norms(tiny_folder):
    plain, _ = FastModel.from_pretrained(tiny_folder, dtype="bfloat16")
    before = type(plain.module["model"]["norm"])
    FastModel.from_pretrained(tiny_folder, dtype="bfloat16", full_finetuning=True)
    assert type(plain.module["model"]["norm"]) is before
    again, _ = FastModel.from_pretrained(tiny_folder, dtype="bfloat16")
    assert type(again.module["model"]["norm"]) is before


def test_steps_smaller_than_bfloat16_are_taken_by_the_norms(tiny_folder, rows):
    """From 1 the next bfloat16 is 1.0078: with a rate of 1e-4 a norm kept in it would never move."""
    model, _ = FastModel.from_pretrained(tiny_folder, dtype="bfloat16", full_finetuning=True)
    before = {name: np.array(value) for name, value in norms_of(model).items()}
    args = TrainingConfig(max_steps=3, learning_rate=1e-4, warmup_steps=0, lr_scheduler_type="constant")
    trainer = Trainer(model, train_dataset=rows, args=args)
    trainer.subscribe(lambda event: None)
    trainer.train()
    for name, value in norms_of(model).items():
        moved = np.abs(np.array(value) - before[name])
        assert 5e-5 < np.median(moved) < 4e-4, name  # Adam takes about one rate a step
