"""Answers written together are those written one by one, token for token, or it is said why they are not."""

import mlx_lm
import numpy as np
import pytest

from tests.makers.packed_rows import CARRY_STATE, COHERE2, GPT2, MINISTRAL3
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.data.examples import Example, Text, Tokens
from tunebook.models.families.batched import greedy

# Windows of 16 tokens, shorter than most prompts; layers that carry a state; positions in a table.
TOGETHER = {
    "llama": {},
    "qwen3": {},
    "qwen3_moe": {},
    "gemma3": {},
    "smollm3": {},
    "lfm2": {"model_type": "lfm2", **CARRY_STATE["lfm2"]},
    "qwen3_5": {"model_type": "qwen3_5", **CARRY_STATE["qwen3_5"]},
    "cohere2": COHERE2,
    "gpt2": {"model_type": "gpt2", **GPT2},
    "ministral3": {"model_type": "ministral3", **MINISTRAL3},
    "mistral": {"model_type": "mistral", "sliding_window": 16},
}
ALONE = {"gemma2": {}, "mamba": {"model_type": "mamba", **CARRY_STATE["mamba"]}}
LENGTHS = (3, 40, 17, 22, 1, 8, 30)


def made(folder, kind, own):
    base = kind if kind in ("qwen3", "qwen3_moe", "gemma2", "gemma3", "smollm3") else "llama"
    return FastModel.from_pretrained(tiny_model_folder(folder / kind, base, **own), dtype="float32")[0]


def prompts(lengths=LENGTHS) -> list[Example]:
    random = np.random.default_rng(0)
    ids = [tuple(random.integers(3, 500, length).tolist()) for length in lengths]
    return [Example((Tokens(each, (False,) * len(each)),), rendered=True) for each in ids]


def answered(model, batch_size):
    return dict(model.family.answers(model.module, prompts(), max_tokens=24, batch_size=batch_size))


@pytest.mark.parametrize("kind", [*TOGETHER, *ALONE])
def test_answers_of_a_batch_are_those_taken_one_by_one(kind, tmp_path):
    model = made(tmp_path, kind, {**TOGETHER, **ALONE}[kind])
    model.module.eval()
    assert (model.family.why_alone(model.module) is None) == (kind in TOGETHER)
    assert answered(model, 3) == answered(model, 1)


def test_why_answers_are_written_one_by_one_is_said(tmp_path):
    gemma2, mamba = (made(tmp_path, kind, own) for kind, own in ALONE.items())
    assert "fails with several rows" in gemma2.family.why_alone(gemma2.module)
    assert "its layers see the padding of other rows" in mamba.family.why_alone(mamba.module)


def test_an_answer_is_what_stock_mlx_lm_writes_and_says_whether_it_ended_by_itself(tiny_folder):
    model, _ = FastModel.from_pretrained(tiny_folder, dtype="float32")
    stock, tokenizer = mlx_lm.load(str(tiny_folder))[:2]
    texts = ["the quick brown", "What is the capital of France?", "a tune"]
    examples = [Example((Text(text),), rendered=True) for text in texts]
    model.module.eval()
    found = dict(model.family.answers(model.module, examples, max_tokens=12, batch_size=2))
    for place, text in enumerate(texts):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert found[place].text == mlx_lm.generate(stock, tokenizer, ids, max_tokens=12)
        assert found[place].ended == (len(found[place].tokens) < 12)
    # The token that the first answer begins with ends them now: it is not part of it.
    first = found[0].tokens[0]
    model.family.tokenizer.eos_token_ids = {first}
    try:
        for batch_size in (1, 3):
            again = dict(model.family.answers(model.module, examples, max_tokens=12, batch_size=batch_size))
            assert (again[0].tokens, again[0].text, again[0].ended) == ((), "", True)
    finally:
        model.family.tokenizer.eos_token_ids = {tokenizer.eos_token_id}


def test_a_text_that_ends_answers_is_cut_off_and_nothing_is_written_after_it(model):
    model.module.eval()
    whole = {at: answer.text for at, answer in answered(model, 1).items()}
    stop = [whole[1][5:8], whole[4][9:10]]
    for batch_size in (1, 3):
        found = dict(model.family.answers(model.module, prompts(), max_tokens=24, batch_size=batch_size, stop=stop))
        for at, text in whole.items():
            expected = min((text.partition(one)[0] for one in stop), key=len)
            assert found[at].text == expected
            assert found[at].ended == (expected != text)
        assert len(found[1].tokens) < 24


def test_an_answer_stops_where_the_table_of_positions_ends(tmp_path):
    model = made(tmp_path, "gpt2", {"model_type": "gpt2", **GPT2, "n_positions": 48, "n_ctx": 48})
    model.module.eval()
    for batch_size in (1, 4):
        found = dict(model.family.answers(model.module, prompts((44, 10)), max_tokens=8, batch_size=batch_size))
        assert [len(found[place].tokens) for place in range(2)] == [4, 8]


def test_a_model_that_reads_images_answers_one_by_one_as_it_generates(vision_models):
    model = vision_models("qwen3_vl")
    example = Example((Text("a dog and a cat"),), rendered=True)
    assert "one by one" in model.family.why_alone(model.module)
    ((place, found),) = model.family.answers(model.module, [example], max_tokens=5, batch_size=4)
    pieces = model.family.generate(model.module, example, max_tokens=5, sampler=greedy)
    assert (place, found.text) == (0, "".join(piece.text for piece in pieces))
