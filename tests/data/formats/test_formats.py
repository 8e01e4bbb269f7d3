"""formats/: the same conversation in each format that people have it in."""

import pytest

from tests.data.formats.conversations import TOOL_TEMPLATE, TURNS, supervised, with_template
from tunebook.data.formats import render_chat, to_examples


def test_a_prompt_and_completion_is_one_question_and_its_answer(tokenizer):
    [example] = to_examples([{"prompt": "Who?", "completion": "I."}], tokenizer)
    asked = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    assert example == render_chat(asked, tokenizer)


def test_raw_text_is_supervised_whole(tokenizer):
    [example] = to_examples([{"text": "Once upon a time"}], tokenizer)
    assert supervised(example) == ["Once upon a time"]
    assert not example.rendered


@pytest.mark.parametrize(
    "conversation",
    [
        [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Where are you?"},
            {"from": "gpt", "value": "In Paris."},
        ],
        TURNS[:3],
    ],
)
def test_sharegpt_is_the_same_conversation_under_other_names(tokenizer, conversation):
    [example] = to_examples([{"conversations": conversation}], tokenizer)
    assert example == render_chat(TURNS[:3], tokenizer)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS[1:3]},
        {"conversations": [{"from": "human", "value": "Where are you?"}, {"from": "gpt", "value": "In Paris."}]},
        {"prompt": "Where are you?", "completion": "In Paris."},
        {"instruction": "Where are you?", "output": "In Paris."},
    ],
)
def test_tools_are_read_in_every_format_of_conversations_and_not_said_to_be_unread(tmp_path, row):
    tokenizer, tools = with_template(tmp_path, TOOL_TEMPLATE), [{"type": "function", "function": {"name": "f"}}]
    [example] = to_examples([{**row, "tools": tools}], tokenizer)
    assert example == render_chat(TURNS[1:3], tokenizer, tools)
    assert example.text.startswith("<tools>f")


@pytest.mark.parametrize("given", [{}, {"input": ""}, {"input": None}])
def test_an_alpaca_row_without_input_asks_its_instruction(tokenizer, given):
    [example] = to_examples([{"instruction": "Who?", "output": "I.", **given}], tokenizer)
    asked = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    assert example == render_chat(asked, tokenizer)


def test_the_input_of_an_alpaca_row_follows_its_instruction(tokenizer):
    [example] = to_examples([{"instruction": "Translate.", "input": "chat", "output": "cat"}], tokenizer)
    assert "user\nTranslate.\n\nchat<|im_end|>" in example.text
    assert supervised(example) == ["cat<|im_end|>"]


def test_alpaca_without_a_chat_template_is_the_text_alpaca_was_trained_on(tmp_path):
    bare = with_template(tmp_path, None)
    [example] = to_examples([{"instruction": "Translate.", "input": "chat", "output": "cat"}], bare)
    assert example.text.endswith("### Instruction:\nTranslate.\n\n### Input:\nchat\n\n### Response:cat")
    assert supervised(example) == ["cat"]
    assert not example.rendered


def test_a_formatting_func_may_make_text_or_messages_or_a_row(tokenizer):
    rows = [{"q": "Where are you?", "a": "In Paris."}]
    asked = lambda row: [{"role": "user", "content": row["q"]}, {"role": "assistant", "content": row["a"]}]  # noqa: E731
    made = [
        list(to_examples(rows, tokenizer, formatting_func=func))
        for func in (asked, lambda row: {"messages": asked(row)}, lambda row: f"{row['q']} {row['a']}")
    ]
    assert made[0] == made[1] == [render_chat(asked(rows[0]), tokenizer)]
    assert supervised(made[2][0]) == ["Where are you? In Paris."]
    with pytest.raises(ValueError, match="returned a int"):
        list(to_examples(rows, tokenizer, formatting_func=lambda row: 3))
