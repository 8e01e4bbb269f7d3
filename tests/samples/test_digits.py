"""The digits that scikit-learn brings, and the small model that is taught to read them."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_vlm.utils import load as load_stock

from tunebook import FastModel, Trainer, TrainingConfig, hold_out, samples


def test_there_are_1797_digits_and_about_as_many_of_each():
    rows = samples.digits()
    answers = [row["messages"][1]["content"] for row in rows]
    assert len(rows) == 1797
    assert set(answers) == set("0123456789")
    assert min(map(answers.count, "0123456789")) > 170
    image = rows[0]["messages"][0]["content"][0]["image"]
    assert image.size == (8, 8)
    assert np.array(image).min() < 20 < 250 < np.array(image).max()


def test_the_answer_may_be_a_word():
    words = [row["messages"][1]["content"] for row in samples.digits("What?", in_words=True)[:3]]
    assert words == ["zero", "one", "two"]


def test_the_same_seed_gives_the_same_model_and_stock_mlx_vlm_opens_it(tmp_path):
    one, again, other = (
        (samples.digit_reader(tmp_path / name, seed=seed) / "model.safetensors").read_bytes()
        for name, seed in (("one", 0), ("again", 0), ("other", 1))
    )
    assert one == again != other
    module, _ = load_stock(str(tmp_path / "one"))
    assert mx.isfinite(module(mx.array([[1, 2, 3]]), None).logits).all()


def test_from_random_weights_it_learns_to_read_digits_it_never_saw(tmp_path):
    train, held_out = hold_out(samples.digits(), 200)
    model, _ = FastModel.from_pretrained(samples.digit_reader(tmp_path), full_finetuning=True, max_seq_length=64)
    settings = TrainingConfig(
        per_device_train_batch_size=32,
        gradient_accumulation_steps=1,
        num_train_epochs=3,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        hold_out=0,
    )
    Trainer(model, train_dataset=train, args=settings).train()
    asked = [(row["messages"][:1], row["messages"][1]["content"]) for row in held_out]
    read = np.mean([model.generate(question, max_tokens=3).strip() == answer for question, answer in asked])
    assert read >= 0.85  # chance is 0.1
    assert pytest.approx(read, abs=0.1) == 0.95
