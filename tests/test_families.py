import mlx.core as mx
import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.examples import Example, Text
from tunebook.formats import to_examples


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


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_trunk_and_head_give_the_models_own_logits_once_the_probe_has_passed(architecture, tmp_path, rows):
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / architecture, architecture))
    batch = model.family.collate(encoded(model, rows), width=65)
    apart = model.family.head(model.module, model.family.hidden(model.module, batch))
    assert model.family.splits
    assert mx.allclose(apart, model.module(batch["tokens"][:, :-1]), atol=1e-4)


def test_a_model_that_scales_its_logits_outside_the_seam_is_called_whole(model):
    from tunebook.families.text import trunk_and_head_agree

    class Scaled(type(model.module)):
        def __call__(self, tokens):
            return super().__call__(tokens) * 0.5

    assert trunk_and_head_agree(model.module)
    model.module.__class__ = Scaled
    assert not trunk_and_head_agree(model.module)


def test_generation_follows_the_likeliest_token_of_a_full_forward_pass(model):
    prompt = Example(parts=(Text("the quick brown"),), rendered=True)
    tokenizer = model.loaded.tokenizer
    said = "".join(model.family.generate(model.module, prompt, max_tokens=5, temperature=0.0, top_p=1.0))
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
