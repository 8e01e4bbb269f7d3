"""Rows for new tokens: old ones stay bit for bit, new ones are trained where asked, and every export has them."""

import mlx.core as mx
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.models.tensors import flat

NEW = {"additional_special_tokens": ["<|turn|>", "<|stop|>"]}
ROWS = [{"text": "a <|turn|> and a <|stop|>"}] * 4


def tables(model):
    """Every array of the embedding and the head, by name."""
    return {name: value for name, value in flat(model.module.parameters()).items() if "embed" in name or "head" in name}


def resized(folder, **options):
    """(the model as it was, the model with two more tokens)"""
    before = tables(FastModel.from_pretrained(folder, **options)[0])
    model, tokenizer = FastModel.from_pretrained(folder, **options)
    tokenizer.add_special_tokens(NEW)
    return before, FastModel.resize_embeddings(model)


@pytest.mark.parametrize("options", [{}, {"load_in_4bit": True}, {"load_in_8bit": True}, {"dtype": "bfloat16"}])
def test_old_rows_stay_bit_for_bit_and_new_ones_are_their_mean(tmp_path, options):
    before, model = resized(tiny_model_folder(tmp_path / "m"), **options)
    after = tables(model)
    assert model.family.tables.tokens == model.family.tables.targets == 514
    assert all(mx.array_equal(after[name][:512], old) for name, old in before.items())
    embedding = model.module["model"]["embed_tokens"](mx.arange(514)).astype(mx.float32)
    spread = mx.abs(embedding[:512]).max()
    assert mx.abs(embedding[512:] - embedding[:512].mean(axis=0)).max() < 0.1 * spread
    Trainer(model, train_dataset=ROWS, args=TrainingConfig(max_steps=1, hold_out=0))


def test_a_saved_tokenizer_with_new_tokens_is_resized_when_it_is_loaded(tmp_path):
    folder = tiny_model_folder(tmp_path / "m")
    _, tokenizer = FastModel.from_pretrained(folder)
    tokenizer.add_special_tokens(NEW)
    tokenizer.save_pretrained(folder)
    model, _ = FastModel.from_pretrained(folder, resize_embeddings=True)
    assert model.family.tables.tokens == 514
    same, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "other"), resize_embeddings=True)
    assert same.family.tables.tokens == 512


@pytest.mark.float32
def test_new_rows_are_trained_and_merged_and_transformers_computes_the_same(tmp_path):
    _, model = resized(tiny_model_folder(tmp_path / "m"))
    FastModel.get_peft_model(model, r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    before = mx.array(model.module["model"]["embed_tokens"]["weight"])
    trainer = Trainer(model, train_dataset=ROWS, args=TrainingConfig(max_steps=2, warmup_steps=0, hold_out=0))
    assert not any("not trained" in notice for notice in trainer.data.notices)
    trainer.train()
    assert not mx.array_equal(model.module["model"]["embed_tokens"]["weight"][512:], before[512:])
    model.save_pretrained_merged(tmp_path / "merged", dtype="float32")
    ids = [[5, 512, 9, 513]]
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(theirs, np.array(model.module(mx.array(ids))), atol=1e-4)
    model.save_pretrained(tmp_path / "lora")
    again, tokenizer = FastModel.from_pretrained(tmp_path / "lora")
    assert tokenizer.convert_tokens_to_ids("<|stop|>") == 513
    assert mx.allclose(again.module(mx.array(ids)), model.module(mx.array(ids)), atol=1e-5)
    (gguf,) = model.save_pretrained_gguf(tmp_path / "gguf", quantization_method="f32")
    whole, tokens = FastModel.from_pretrained(gguf.path)
    assert tokens.convert_tokens_to_ids("<|stop|>") == 513
    assert mx.allclose(whole.module(mx.array(ids)), model.module(mx.array(ids)), atol=1e-4)


def test_rows_that_nothing_trains_are_said(tmp_path):
    _, model = resized(tiny_model_folder(tmp_path / "m"))
    FastModel.get_peft_model(model, r=2)
    trainer = Trainer(model, train_dataset=ROWS, args=TrainingConfig(max_steps=1, hold_out=0))
    assert any("2 rows were added" in notice and "embed_tokens" in notice for notice in trainer.data.notices)
    model.loaded.tokenizer.add_special_tokens({"additional_special_tokens": ["<|more|>"]})
    with pytest.raises(ValueError, match="before get_peft_model"):
        FastModel.resize_embeddings(model)
