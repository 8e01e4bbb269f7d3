"""fast/gradient_checkpointing.py: the gradients of the plain path and of finite differences, in less memory."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tests.makers.peaks import peak_bytes
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.fast.gradient_checkpointing import recomputed_layers
from tunebook.memory.forecast import asked_checkpointing
from tunebook.objectives.next_token import summed_loss, supervised_positions

pytestmark = pytest.mark.float32

TOKENS = mx.array([[5, 17, 99, 4, 250, 301, 7]])
BATCH = {"tokens": TOKENS, "loss_mask": mx.ones(TOKENS.shape, mx.bool_)}


def loss_and_gradients(model, batch=BATCH):
    module = model.module
    module.train()
    step = nn.value_and_grad(module, summed_loss(model.family))
    loss, gradients = step(module, batch, supervised_positions(batch))
    mx.eval(loss, gradients)
    return loss.item(), {name: np.array(array) for name, array in tree_flatten(gradients)}


@pytest.mark.parametrize("full", [False, True])
def test_gradients_are_the_plain_ones(tuned, tiny_folder, full):
    model = FastModel.from_pretrained(tiny_folder, full_finetuning=True)[0] if full else tuned
    loss, plain = loss_and_gradients(model)
    with recomputed_layers(model.module):
        again, found = loss_and_gradients(model)
    assert again == pytest.approx(loss, rel=1e-6)
    assert found.keys() == plain.keys()
    assert all(np.allclose(found[name], plain[name], rtol=1e-4, atol=1e-5) for name in plain)


def test_with_dropout_both_passes_drop_the_same(model):
    """A finite difference under one seed is the reference: with two masks it would be of another function."""
    FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=0.5)
    module, name = model.module, "model.layers.0.self_attn.q_proj.lora_b"
    mx.random.seed(1)
    start = dict(tree_flatten(module.trainable_parameters()))
    start = {key: mx.random.normal(value.shape) * 0.1 for key, value in start.items()}
    direction = mx.random.normal(start[name].shape)

    def at(distance):
        module.update(tree_unflatten(list((start | {name: start[name] + distance * direction}).items())))
        mx.random.seed(2)
        return loss_and_gradients(model)

    with recomputed_layers(module):
        derivative = (at(2e-3)[0] - at(-2e-3)[0]) / 4e-3
        _, gradients = at(0.0)
    assert (gradients[name] * np.array(direction)).sum() == pytest.approx(derivative, rel=1e-2)


def test_a_deep_model_peaks_lower(tmp_path):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, num_hidden_layers=12))
    FastModel.get_peft_model(model, r=4)
    tokens = mx.arange(4 * 128).reshape(4, 128) % 300
    batch = {"tokens": tokens, "loss_mask": mx.arange(128)[None] + mx.zeros((4, 1)) > 120}

    plain = peak_bytes(lambda: loss_and_gradients(model, batch))
    with recomputed_layers(model.module):
        assert peak_bytes(lambda: loss_and_gradients(model, batch)) < 0.5 * plain


def test_nothing_of_it_is_left_when_the_block_ends_even_by_an_error(tuned):
    kinds = [type(layer) for layer in tuned.module.layers]
    calls = [kind.__call__ for kind in kinds]
    names = list(dict(tree_flatten(tuned.module.parameters())))
    with recomputed_layers(tuned.module):
        assert list(dict(tree_flatten(tuned.module.parameters()))) == names
    with pytest.raises(ValueError, match="unpack"), recomputed_layers(tuned.module):
        tuned.module(mx.zeros((1, 2, 3, 4, 5), mx.int32))
    assert [type(layer) for layer in tuned.module.layers] == kinds
    assert [kind.__call__ for kind in kinds] == calls


def test_a_run_with_it_takes_the_steps_of_a_run_without(tiny_folder, rows):
    losses = []
    for switch in (False, True):
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=4)
        args = TrainingConfig(max_steps=3, warmup_steps=0, learning_rate=1e-2, gradient_checkpointing=switch)
        trainer = Trainer(model, train_dataset=rows, args=args)
        trainer.subscribe(lambda event: None)
        losses.append([step.loss for step in trainer.train().steps])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_word_that_is_no_switch_is_refused(model):
    with pytest.raises(ValueError, match=r"'off'; choose one of .*; write use_gradient_checkpointing=False"):
        FastModel.get_peft_model(model, use_gradient_checkpointing="off")


@pytest.mark.parametrize(
    ("loaded_with", "configured", "used"),
    [
        ("auto", None, "auto"),
        (False, None, False),
        (True, None, True),
        ("unsloth", None, True),
        (True, False, False),
        (False, True, True),
    ],
)
def test_the_training_config_decides_and_else_what_get_peft_model_was_told(model, rows, loaded_with, configured, used):
    FastModel.get_peft_model(model, r=4, use_gradient_checkpointing=loaded_with)
    trainer = Trainer(model, train_dataset=rows, args=TrainingConfig(gradient_checkpointing=configured))
    assert asked_checkpointing(model, trainer.config) == used
