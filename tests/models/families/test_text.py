from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from transformers import AutoTokenizer

from tests.makers.packed_rows import CARRY_STATE
from tests.makers.tiny import ARCHITECTURES, tiny_model_folder
from tunebook import FastModel, TrainingConfig
from tunebook.data.examples import Example, Text
from tunebook.data.formats import to_examples
from tunebook.fast.forms import forms_for
from tunebook.models.families.batched import greedy
from tunebook.models.families.head import find_head, projection, rest_of_the_model
from tunebook.objectives import next_token
from tunebook.train.step import Stepper


def encoded(model, rows):
    return model.family.encode(list(to_examples(rows, model.loaded.tokenizer)))


def test_token_ids_are_those_transformers_gives_the_same_conversation(model, rows, tiny_folder):
    reference = AutoTokenizer.from_pretrained(tiny_folder)
    for row, ours in zip(rows, encoded(model, rows), strict=True):
        assert ours.tokens.tolist() == reference.apply_chat_template(row["messages"], tokenize=True, return_dict=False)


def test_user_turns_are_never_supervised(model, rows):
    for row, ours in zip(rows, encoded(model, rows), strict=True):
        answer = row["messages"][1]["content"]
        assert model.loaded.tokenizer.decode(ours.tokens[ours.loss_mask].tolist()) == f"{answer}<|im_end|>"


def test_characters_of_several_tokens_keep_their_mask(model):
    row = {"messages": [{"role": "user", "content": "日本語 🎵"}, {"role": "assistant", "content": "🎵 où 日本"}]}
    [ours] = encoded(model, [row])
    assert model.loaded.tokenizer.decode(ours.tokens[ours.loss_mask].tolist()) == "🎵 où 日本<|im_end|>"


def test_eos_ends_raw_text_once_and_is_never_added_to_a_chat(model, rows):
    eos = model.loaded.tokenizer.eos_token_id
    for text in ("a plain line", "a plain line<|im_end|>"):
        [ours] = encoded(model, [{"text": text}])
        assert ours.tokens[-1] == eos
        assert (ours.tokens == eos).sum() == 1
    assert (encoded(model, rows)[0].tokens == eos).sum() == 2  # one per turn


def test_padding_is_never_supervised(model, rows):
    batch = model.family.collate(encoded(model, rows), width=100)
    lengths = [len(row.tokens) for row in encoded(model, rows)]
    mask = np.array(batch["loss_mask"])
    assert all(not mask[index, length:].any() for index, length in enumerate(lengths))
    assert mask.sum() == sum(row.loss_mask.sum() for row in encoded(model, rows))


# Models of mlx-lm as changes to the tiny Llama's config, with how their hidden states become logits.
HEADS = {
    "llama": ({}, projection),
    "untied llama": ({"tie_word_embeddings": False}, projection),
    "qwen2": ({}, projection),
    "qwen3": ({}, projection),
    "gemma3": ({}, projection),
    "phi3": ({}, projection),
    "smollm3": ({}, projection),
    "gemma2": ({"model_type": "gemma2", "final_logit_softcapping": 3.0}, rest_of_the_model),
    "cohere": ({"model_type": "cohere"}, rest_of_the_model),
    "granite": (
        {
            "model_type": "granite",
            "logits_scaling": 4.0,
            "attention_multiplier": 0.25,
            "embedding_multiplier": 2.0,
            "residual_multiplier": 0.5,
            "mlp_bias": False,
        },
        rest_of_the_model,
    ),
    "qwen3_moe": (
        {
            "model_type": "qwen3_moe",
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
        projection,
    ),
    "gpt_oss": (
        {
            "model_type": "gpt_oss",
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        projection,
    ),
    "lfm2": ({"model_type": "lfm2", **CARRY_STATE["lfm2"]}, projection),
    "qwen3_5": ({"model_type": "qwen3_5", **CARRY_STATE["qwen3_5"]}, projection),
    "gpt2": (
        {
            "model_type": "gpt2",
            "n_ctx": 512,
            "n_embd": 64,
            "n_head": 4,
            "n_layer": 2,
            "n_positions": 512,
            "layer_norm_epsilon": 1e-5,
        },
        None,
    ),
}


# MLX's CPU build (0.32) multiplies by chosen experts in float32 alone.
NAMES = [pytest.param(name, marks=pytest.mark.float32) if name in ("qwen3_moe", "gpt_oss") else name for name in HEADS]


def tiny(name, folder):
    changes, _ = HEADS[name]
    return FastModel.from_pretrained(tiny_model_folder(folder, name if name in ARCHITECTURES else "llama", **changes))[
        0
    ]


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_and_head_give_the_models_own_logits(name, tmp_path, rows):
    model = tiny(name, tmp_path)
    batch = model.family.collate(encoded(model, rows), width=65)
    apart = model.family.head(model.module, model.family.hidden(model.module, batch))
    assert find_head(model.module) is HEADS[name][1]
    assert mx.allclose(apart, model.module(batch["tokens"][:, :-1]), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_the_head_alone_has_the_value_and_gradients_of_the_plain_one(name, tmp_path, rows, monkeypatch):
    few = replace(forms_for(), logit_bytes=1, logit_rows=16)
    model = tiny(name, tmp_path)
    FastModel.get_peft_model(model, r=4)
    mx.random.seed(0)
    trained = model.module.trainable_parameters()
    model.module.update(tree_map(lambda array: array + 0.05 * mx.random.normal(array.shape), trained))
    batch = model.family.collate(encoded(model, rows[:4]), width=65)
    positions = next_token.supervised_positions(batch)

    def plain(module, batch, _):
        logits = module(batch["tokens"][:, :-1]).astype(mx.float32)
        return (nn.losses.cross_entropy(logits, batch["tokens"][:, 1:]) * batch["loss_mask"][:, 1:]).sum()

    value, gradients = nn.value_and_grad(model.module, plain)(model.module, batch, positions)
    loss = next_token.summed_loss(model.family, few)
    enough = 1e-5 if model.loaded.dtype == mx.float32 else 0.02
    found, ours = nn.value_and_grad(model.module, loss)(model.module, batch, positions)
    assert found.item() == pytest.approx(value.item(), rel=enough)
    gradients = dict(tree_flatten(gradients))
    whole = mx.sqrt(sum((gradient**2).sum() for gradient in gradients.values())).item()
    for path, gradient in tree_flatten(ours):
        assert mx.linalg.norm((gradient - gradients[path]).reshape(-1)).item() < enough * whole, path


def test_a_run_says_when_whole_logits_are_made(tmp_path, rows):
    for name, told in (("gpt2", 1), ("llama", 0)):
        model = tiny(name, tmp_path / name)
        FastModel.get_peft_model(model, r=4)
        stepper = Stepper(model.loaded, TrainingConfig(), encoded(model, rows), total_steps=1, max_seq_length=65)
        assert sum(text.startswith("The logits of whole batches are made") for text in stepper.notices) == told


def test_a_model_whose_head_does_more_than_either_way_shows_is_called_whole(model):
    class Odd(type(model.module)):
        def __call__(self, tokens):
            return super().__call__(tokens) * (1.0 + tokens[0, 0])  # scaled by what the trunk was given

    assert find_head(model.module) is projection
    model.module.__class__ = Odd
    assert find_head(model.module) is None


def test_generation_follows_the_likeliest_token_of_a_full_forward_pass(model):
    prompt = Example(parts=(Text("the quick brown"),), rendered=True)
    tokenizer = model.loaded.tokenizer
    said = "".join(piece.text for piece in model.family.generate(model.module, prompt, max_tokens=5, sampler=greedy))
    tokens = tokenizer.encode("the quick brown", add_special_tokens=False)
    for _ in range(5):
        tokens.append(int(mx.argmax(model.module(mx.array([tokens]))[0, -1]).item()))
        if tokens[-1] in tokenizer.eos_token_ids:
            tokens.pop()
            break
    assert said == tokenizer.decode(tokens)[len("the quick brown") :]


def test_rows_of_token_ids_are_encoded_as_they_stand(model):
    [ours] = encoded(model, [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}])
    assert ours.tokens.tolist() == [5, 6, 7]
    assert ours.loss_mask.tolist() == [False, True, True]


def test_raw_text_that_begins_with_bos_gets_no_second_one(tmp_path):
    folder = tiny_model_folder(tmp_path / "llama", style="llama3")  # whose tokenizer opens every text with BOS
    model, tokenizer = FastModel.from_pretrained(folder)
    bare, opened = encoded(model, [{"text": "a line"}, {"text": f"{tokenizer.bos_token}a line"}])
    assert bare.tokens.tolist() == opened.tokens.tolist()
    assert (bare.tokens == tokenizer.bos_token_id).sum() == 1
