"""The chat template a real model brings in its GGUF file, judged by the ChatML it is known to write."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunebook import FastModel
from tunebook.data.examples import texts
from tunebook.data.formats import render_chat

pytestmark = pytest.mark.real_model

ANSWERS = re.compile(r"(?<=<\|im_start\|>assistant\n).*?<\|im_end\|>", re.DOTALL)


@pytest.fixture(scope="module")
def tokenizer():
    return FastModel.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct", max_seq_length=128)[1]


contents = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text.strip() and "<|" not in text
)
conversations = st.tuples(st.booleans(), st.lists(st.tuples(contents, contents), min_size=1, max_size=3))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=conversations)
def test_exactly_the_answers_and_their_end_tokens_are_supervised(tokenizer, conversation):
    has_system, turns = conversation
    messages = [{"role": "system", "content": "You are brief."}] if has_system else []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    parts = texts(render_chat(messages, tokenizer))
    whole = "".join(part.text for part in parts)
    assert whole == tokenizer.apply_chat_template(messages, tokenize=False)
    assert [part.text for part in parts if part.supervised] == ANSWERS.findall(whole)
    assert len(ANSWERS.findall(whole)) == len(turns)


def test_every_supervised_token_is_one_of_an_answer(tokenizer):
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because it rains."}]
    example = render_chat(messages, tokenizer)
    said = "".join(part.text for part in texts(example) if part.supervised)
    assert said == "Because it rains.<|im_end|>"
    assert tokenizer.decode(tokenizer.encode(said, add_special_tokens=False)) == said
