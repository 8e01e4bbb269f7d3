import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AutoTokenizer

from tests.tiny import tiny_tokenizer
from tunebook.formats import render_chat, to_examples

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where are you?"},
    {"role": "assistant", "content": "In Paris."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "In Rome,\nby now."},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return TokenizerWrapper(AutoTokenizer.from_pretrained(folder))


def supervised(example):
    return [part.text for part in example.parts if part.supervised]


def test_every_answer_is_supervised_with_the_token_that_ends_it_and_nothing_else_is(tokenizer):
    assert supervised(render_chat(TURNS, tokenizer)) == ["In Paris.<|im_end|>", "In Rome,\nby now.<|im_end|>"]


def test_the_parts_together_are_what_the_template_writes(tokenizer):
    assert render_chat(TURNS, tokenizer).text == tokenizer.apply_chat_template(TURNS, tokenize=False)


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer, tmp_path):
    tiny_tokenizer(
        tmp_path,
        chat_template="{% for m in messages %}{% if loop.last or m.role != 'assistant' %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    with pytest.raises(ValueError, match="turn 2"):
        render_chat(TURNS, TokenizerWrapper(AutoTokenizer.from_pretrained(tmp_path)))


def test_a_tokenizer_without_a_template_is_refused_for_chats_and_fine_for_plain_text(tmp_path):
    tiny_tokenizer(tmp_path, chat_template=None)
    bare = TokenizerWrapper(AutoTokenizer.from_pretrained(tmp_path))
    with pytest.raises(ValueError, match="no chat template"):
        list(to_examples([{"messages": TURNS}], bare))
    [example] = to_examples([{"prompt": "one plus one is", "completion": " two"}], bare)
    assert supervised(example) == [" two"]


def test_a_prompt_and_completion_is_one_question_and_its_answer(tokenizer):
    [example] = to_examples([{"prompt": "Who?", "completion": "I."}], tokenizer)
    asked = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    assert example == render_chat(asked, tokenizer)


def test_raw_text_is_supervised_whole(tokenizer):
    [example] = to_examples([{"text": "Once upon a time"}], tokenizer)
    assert supervised(example) == ["Once upon a time"]
    assert not example.rendered


def test_rows_without_an_answer_are_counted_and_the_first_is_named(tokenizer):
    good, bad = {"messages": TURNS}, {"messages": TURNS[:2]}
    with pytest.raises(ValueError, match=r"2 of 4 rows .*first: row 1.*no assistant turn"):
        list(to_examples([good, bad, good, bad], tokenizer))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "  "}]}, "turn is empty"),
        ({"messages": [{"role": "user"}]}, "'role' and 'content'"),
        ({"messages": [{"role": "user", "content": 7}]}, "is a int"),
        ({"messages": []}, "'messages' is empty"),
        ({"text": ""}, "'text' is empty"),
    ],
)
def test_a_bad_row_says_what_is_wrong_with_it(tokenizer, row, complaint):
    with pytest.raises(ValueError, match=complaint):
        list(to_examples([row], tokenizer))


def test_mixed_rows_are_refused_with_the_counts_of_each(tokenizer):
    with pytest.raises(ValueError, match=r"2 of 3 look like 'messages', 1 of 3 look like 'text'"):
        list(to_examples([{"messages": TURNS}, {"messages": TURNS}, {"text": "a"}], tokenizer))


def test_columns_that_fit_two_formats_need_a_choice(tokenizer):
    row = {"messages": TURNS, "text": "a"}
    with pytest.raises(ValueError, match="Pass format="):
        list(to_examples([row], tokenizer))
    assert [example.text for example in to_examples([row], tokenizer, format="text")] == ["a"]
