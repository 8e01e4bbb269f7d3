"""models/neftune.py: the noise is uniform, as large as the paper says, and there only while training."""

import math

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.arrays import in_numpy
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.models.neftune import noisy_embeddings, token_embedding
from tunebook.models.tensors import flat

TOKENS = mx.array([[5, 17, 99, 4, 250, 301, 7, 8] * 16] * 4)  # (4, 128)


@pytest.mark.float32
def test_the_noise_is_uniform_within_alpha_over_the_root_of_tokens_times_width(model):
    embedding = token_embedding(model.module)
    plain = in_numpy(embedding(TOKENS))
    model.module.train()
    mx.random.seed(0)
    with noisy_embeddings(model.module, 5.0):
        noise = in_numpy(embedding(TOKENS)) - plain
    reach = 5.0 / math.sqrt(128 * 64)
    assert np.abs(noise).max() <= reach * 1.0001
    spread, expected = np.sort(noise.reshape(-1)), np.linspace(-reach, reach, noise.size)
    assert np.abs(spread - expected).max() < 0.02 * reach  # Kolmogorov's distance, 1.36 / sqrt(32768) at 5 %
    assert np.abs(np.corrcoef(noise.reshape(4, -1)) - np.eye(4)).max() < 0.05  # rows have noise of their own


def test_there_is_none_in_eval_mode_and_none_after(model):
    embedding = token_embedding(model.module)
    plain = in_numpy(embedding(TOKENS))
    kind = type(embedding)
    with noisy_embeddings(model.module, 5.0):
        model.module.eval()
        assert np.array_equal(in_numpy(embedding(TOKENS)), plain)
    model.module.train()
    assert np.array_equal(in_numpy(embedding(TOKENS)), plain)
    assert type(embedding) is kind


@pytest.mark.float32
def test_an_adapted_embedding_has_the_noise_once(model):
    FastModel.get_peft_model(model, r=4, target_modules=["embed_tokens", "q_proj"])
    embedding = token_embedding(model.module)
    plain = in_numpy(embedding(TOKENS))
    model.module.train()
    with noisy_embeddings(model.module, 5.0):
        noise = in_numpy(embedding(TOKENS)) - plain
    assert np.std(noise) == pytest.approx(5.0 / math.sqrt(128 * 64) / math.sqrt(3), rel=0.02)


def test_the_output_head_that_shares_its_weights_has_none(model):
    embedding = token_embedding(model.module)
    hidden = mx.random.normal((2, 64))
    plain = np.array(embedding.as_linear(hidden))
    model.module.train()
    with noisy_embeddings(model.module, 5.0):
        assert np.array_equal(np.array(embedding.as_linear(hidden)), plain)


def losses(folder, rows, **settings):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4)
    args = TrainingConfig(max_steps=3, warmup_steps=0, eval_steps=1, **settings)
    trainer = Trainer(model, train_dataset=rows, eval_dataset=rows[:4], args=args)
    trainer.subscribe(lambda event: None)
    result = trainer.train()
    return [step.loss for step in result.steps], [score.loss for score in result.evals], flat(model.module.parameters())


def test_a_run_trains_with_it_and_scores_without(tiny_folder, rows):
    (plain, plain_evals, _), (noisy, noisy_evals, _) = (
        losses(tiny_folder, rows, neftune_noise_alpha=a) for a in (0, 5)
    )
    assert noisy[0] != plain[0]
    assert noisy[0] == pytest.approx(plain[0], rel=0.1)
    assert noisy_evals[0] == plain_evals[0]
    assert losses(tiny_folder, rows, neftune_noise_alpha=5)[0] == noisy


def test_a_model_whose_embedding_is_not_found_is_refused_before_the_first_step(tmp_path, rows):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path))
    FastModel.get_peft_model(model, r=4)
    model.module["model"]["vocabulary"] = model.module["model"].pop("embed_tokens")
    with pytest.raises(ValueError, match="no layer called embed_tokens or wte"):
        token_embedding(model.module)
