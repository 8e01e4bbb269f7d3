"""The loss of each token of a row: transformers' under torch on the same weights, with adapters on and off."""

import math

import mlx.core as mx
import numpy as np
import pytest
import torch

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, scores
from tunebook.config import LoraConfig
from tunebook.models.tensors import flat, random_key
from tunebook.parity.references import torch_model

TARGETS = ("q_proj", "v_proj", "down_proj")
ROWS = [
    {"prompt": f"Say {word}.", "completion": f"{word} it is{' and then the dog sleeps' * number}"}
    for number, word in enumerate(("tune", "fox", "日本"))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("likelihoods") / "llama")


@pytest.fixture(scope="module")
def model(folder):
    """With adapters that do something, and dropout in them."""
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    FastModel.get_peft_model(model, r=4, lora_alpha=8, lora_dropout=0.3, target_modules=list(TARGETS))
    mx.random.seed(2)
    adapters = flat(model.module.trainable_parameters())
    model.module.load_weights([(name, mx.random.normal(one.shape) * 0.2) for name, one in adapters.items()], False)
    return model


@pytest.fixture(scope="module")
def theirs(folder, model):
    judge = torch_model.open_with_adapters(folder, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    torch_model.put(judge, {name: np.array(one) for name, one in flat(model.module.trainable_parameters()).items()})
    return judge.eval()


@pytest.fixture(scope="module")
def exam():
    return scores.Exam(ROWS, metrics=["perplexity"])


def losses_under_torch(module, tokens):
    """(T - 1,) nats of tokens 1..T-1."""
    with torch.no_grad():
        logits = module(torch.tensor(tokens[None].astype(np.int64))).logits[0, :-1].double()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:].astype(np.int64)), reduction="none")


@pytest.mark.float32
@pytest.mark.parametrize("adapters", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_loss_is_the_one_of_transformers(exam, model, theirs, adapters, batch_size):
    texts = [*((number, None) for number in range(3)), (0, "the lazy dog"), (2, "où est l'été")]
    sitting = exam.sitting(model, adapters=adapters, batch_size=batch_size)
    found = dict(sitting.token_losses(texts))
    assert found.keys() == set(texts)
    for (number, text), one in found.items():
        prompt, own = sitting.questions[number].asked.text, ROWS[number]["completion"] + "<|im_end|>"
        assert model.loaded.tokenizer.decode(one.tokens.tolist()).startswith(prompt + (text or own))
        if adapters:
            expected = losses_under_torch(theirs, one.tokens)
        else:
            with theirs.disable_adapter():
                expected = losses_under_torch(theirs, one.tokens)
        has_one = np.isfinite(one.losses)
        answer = model.loaded.tokenizer.decode(one.tokens[has_one].tolist())
        assert answer == text or (text is None and answer.startswith(own))
        np.testing.assert_allclose(one.losses[has_one], expected.numpy()[has_one[1:]], atol=1e-4)


def test_they_sum_to_what_the_metrics_are_given(exam, model):
    marks = exam.take(model)
    for (number, _), one in exam.sitting(model).token_losses([(number, None) for number in range(3)]):
        assert marks.rows[number].marks["perplexity"].value == pytest.approx(math.exp(one.nats / one.count), rel=1e-5)


def test_what_cannot_be_asked_comes_back_with_its_reason(model):
    rows = [{"question": "Who?"}, {"question": "What?", "answer": "a fox"}]
    sitting = scores.Exam(rows, metrics=["exact_match"]).sitting(model)
    found = dict(sitting.token_losses([(0, None), (1, None), (1, ""), (1, "the dog " * 40)], longest=64))
    assert isinstance(found.pop((1, None)), scores.TokenLosses)
    assert [str(one) for one in found.values()] == [
        "the row has no answer of its own.",
        "its text has no token that is predicted from one before it.",
        f"with its prompt it has {len(_ids(model, rows[1], 'the dog ' * 40))} tokens, more than 64.",
    ]


def test_the_model_is_left_as_it_was_to_the_last_bit(exam, model):
    model.module.train()
    mx.random.seed(5)
    before, key = {name: np.array(one) for name, one in flat(model.module.parameters()).items()}, random_key()
    for adapters in (True, False):
        for _ in exam.sitting(model, adapters=adapters, batch_size=1).token_losses([(0, None), (1, None)]):
            assert model.module.training
            assert mx.array_equal(random_key(), key)
    after = flat(model.module.parameters())
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], np.array(after[name])) for name in before)


def _ids(model, row, answer):
    tokenizer = model.loaded.tokenizer
    asked = [{"role": "user", "content": row["question"]}]
    text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False) + answer
    return tokenizer.encode(text, add_special_tokens=False)
