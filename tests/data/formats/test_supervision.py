"""formats/supervision.py: which words of a row are trained on, decided once, where it is rendered."""

import pytest

from tests.data.formats.conversations import TOOL_TEMPLATE, TOOL_TURNS, TURNS, supervised, with_template
from tunebook.data.examples import Tokens
from tunebook.data.formats import reader, render_chat, supervise_between, to_examples


def test_every_answer_is_supervised_with_the_token_that_ends_it_and_nothing_else_is(tokenizer):
    assert supervised(render_chat(TURNS, tokenizer)) == ["In Paris.<|im_end|>", "In Rome,\nby now.<|im_end|>"]


def test_the_parts_together_are_what_the_template_writes(tokenizer):
    assert render_chat(TURNS, tokenizer).text == tokenizer.apply_chat_template(TURNS, tokenize=False)


def test_only_the_last_answer_is_supervised_when_asked_for(tokenizer):
    [example] = to_examples([{"messages": TURNS}], tokenizer, train_on="last_assistant")
    assert supervised(example) == ["In Rome,\nby now.<|im_end|>"]


def test_everything_is_supervised_when_asked_for(tokenizer):
    [example] = to_examples([{"messages": TURNS}], tokenizer, train_on="everything")
    assert supervised(example) == [tokenizer.apply_chat_template(TURNS, tokenize=False)]


def test_an_unknown_train_on_is_refused_with_the_choices(tokenizer):
    with pytest.raises(ValueError, match="'last_assistant'"):
        reader([{"text": "a"}], tokenizer, train_on="answers")


def test_the_templates_own_generation_markers_decide_where_it_has_them(tmp_path):
    tokenizer = with_template(
        tmp_path,
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}",
    )
    [example] = to_examples([{"messages": TURNS}], tokenizer)
    assert supervised(example) == ["In Paris.<|im_end|>", "In Rome,\nby now.<|im_end|>"]
    [last] = to_examples([{"messages": TURNS}], tokenizer, train_on="last_assistant")
    assert supervised(last) == ["In Rome,\nby now.<|im_end|>"]


def test_a_tool_call_is_supervised_and_the_tools_output_is_not(tmp_path):
    tokenizer = with_template(tmp_path, TOOL_TEMPLATE)
    assert supervised(render_chat(TOOL_TURNS, tokenizer)) == [
        '<tool_call>f {"city": "Rome"}<|im_end|>',
        "12 degrees.<|im_end|>",
    ]


def test_answers_in_a_prompt_of_messages_are_context(tokenizer):
    [example] = to_examples([{"prompt": TURNS[:4], "completion": TURNS[4:]}], tokenizer)
    assert supervised(example) == ["In Rome,\nby now.<|im_end|>"]
    assert example.text == render_chat(TURNS, tokenizer).text


def test_labels_of_minus_100_are_not_supervised(tokenizer):
    masked, whole = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [5, 6, 7]}
    assert [example.parts for example in to_examples([masked, whole], tokenizer)] == [
        (Tokens((5, 6, 7), (False, True, True)),),
        (Tokens((5, 6, 7), (True, True, True)),),
    ]


def test_what_stands_between_the_markers_is_supervised():
    parts = supervise_between("Q: a\nA: b\n\nQ: c\nA: d ", "Q:", "A:")
    assert [(part.text, part.supervised) for part in parts] == [
        ("Q: a\nA:", False),
        (" b", True),
        ("\n\nQ: c\nA:", False),
        (" d", True),
        (" ", False),
    ]


def test_raw_text_without_the_response_marker_is_a_bad_row(tokenizer):
    with pytest.raises(ValueError, match=r"1 of 2 rows .*\(rows? 1\b.*'A:'"):
        list(to_examples([{"text": "Q: a A: b"}, {"text": "Q: a"}], tokenizer, response_markers=("Q:", "A:")))
