"""Against stock mlx-lm's own trainer: the same losses where its loss is right, the closed form where it is not."""

import math

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.datasets import CacheDataset
from mlx_lm.tuner.trainer import TrainingArgs, default_loss, train

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.objectives.next_token import summed_loss, supervised_positions
from tunebook.parity.references.mlx_lm_run import Losses, Tokens
from tunebook.tokens.encoding import encode_rows

STEPS, WIDTH = 30, 33


def adapted(folder):
    model, _ = FastModel.from_pretrained(folder, max_seq_length=WIDTH)
    return FastModel.get_peft_model(model, r=4, lora_alpha=8, random_state=11)


@pytest.mark.float32
def test_thirty_steps_are_those_of_mlx_lm_where_no_row_is_padded(tiny_folder, tmp_path):
    """Every row has the full width, so mlx-lm has no padding to train on by mistake."""
    texts = [" ".join(f"{word} {number}" for word in ("fox", "dog", "sun", "tune") * 9) for number in range(4)]
    model = adapted(tiny_folder)
    rows = [{"input_ids": model.loaded.tokenizer.encode(text)[:WIDTH]} for text in texts]
    assert {len(row["input_ids"]) for row in rows} == {WIDTH}
    args = TrainingConfig(
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=STEPS,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.01,
        max_grad_norm=None,
    )
    trainer = Trainer(model, train_dataset=rows, args=args)
    trainer.subscribe(lambda event: None)
    ours = [step.loss for step in trainer.train().steps]

    stock, theirs = adapted(tiny_folder), Losses()
    encoded = encode_rows(rows, stock.loaded, max_seq_length=WIDTH).rows
    stock.module.train()
    train(
        model=stock.module,
        optimizer=mlx.optimizers.AdamW(learning_rate=3e-3, weight_decay=0.01, bias_correction=True),
        train_dataset=CacheDataset(Tokens(encoded)),
        args=TrainingArgs(
            batch_size=4,
            iters=STEPS,
            steps_per_report=1,
            steps_per_save=1000,
            max_seq_length=WIDTH,
            adapter_file=str(tmp_path / "adapters.safetensors"),
        ),
        training_callback=theirs,
    )
    assert len(theirs.values) == STEPS
    assert ours == pytest.approx(theirs.values, rel=1e-4)
    final = dict(tree_flatten(stock.module.trainable_parameters()))
    for name, array in tree_flatten(model.module.trainable_parameters()):
        assert np.allclose(np.array(array), np.array(final[name]), atol=1e-4), name


def nats_by_hand(module, tokens):
    """(T-1,) nats of each next token, from NumPy's float64 softmax."""
    logits = np.array(module(mx.array(tokens[None, :-1])))[0].astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -log_probabilities[np.arange(len(tokens) - 1), tokens[1:]]


@pytest.mark.float32
def test_a_padded_row_has_the_loss_of_its_own_tokens_and_not_of_the_padding_mlx_lm_adds(tuned):
    encoded = encode_rows([{"text": "the quick brown fox"}], tuned.loaded, max_seq_length=128).rows
    [row] = encoded
    by_hand = nats_by_hand(tuned.module, row.tokens)
    batch = tuned.family.collate(encoded, WIDTH)
    positions = supervised_positions(batch)
    ours = summed_loss(tuned.family)(tuned.module, batch, positions).item() / positions.size
    assert ours == pytest.approx(by_hand.mean(), rel=1e-5)

    length = len(row.tokens)
    theirs, count = default_loss(tuned.module, batch["tokens"], mx.array([[0, length]]))
    with_padding = nats_by_hand(tuned.module, np.append(row.tokens, 0))
    assert count.item() == positions.size + 1
    assert theirs.item() == pytest.approx(with_padding.mean(), rel=1e-5)


def test_a_row_with_nothing_supervised_is_nan_there_and_left_out_here(tuned):
    row = {"messages": [{"role": "user", "content": "why " * 40}, {"role": "assistant", "content": "so"}]}
    short = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "so"}]}
    made = encode_rows([row, short], tuned.loaded, max_seq_length=WIDTH)
    encoded, notices = made.rows, made.notices
    assert len(encoded) == 1
    assert any("left out" in notice for notice in notices)
    tokens = mx.zeros((1, WIDTH), dtype=mx.int32)
    loss, _ = default_loss(tuned.module, tokens, mx.array([[90, WIDTH]]))
    assert math.isnan(loss.item())
