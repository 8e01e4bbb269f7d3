"""formats/templates.py: what a chat template writes, and templates by which nobody can tell what is supervised."""

import json

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AutoTokenizer

from tests.data.formats.conversations import TOOL_TEMPLATE, TOOL_TURNS, TURNS, supervised, with_template
from tests.makers.tiny import tiny_tokenizer
from tunebook.data.formats import render_chat, to_examples


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


def test_a_template_without_a_generation_prompt_is_refused_by_name(tmp_path):
    tokenizer = with_template(
        tmp_path, "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    with pytest.raises(ValueError, match=r"\{% for m in messages %\}.*no generation prompt.*response_markers="):
        list(to_examples([{"messages": TURNS}], tokenizer))
    markers = ("<|im_start|>user\n", "<|im_start|>assistant\n")
    [example] = to_examples([{"messages": TURNS}], tokenizer, response_markers=markers)
    assert supervised(example) == ["In Paris.<|im_end|>", "In Rome,\nby now.<|im_end|>"]


def test_a_template_that_ends_the_last_turn_alone_is_refused_for_the_others(tmp_path):
    tokenizer = with_template(
        tmp_path,
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|im_end|>{% endif %}",
    )
    [example] = to_examples([{"messages": TURNS[:3]}], tokenizer)
    assert supervised(example) == ["In Paris.<|im_end|>"]
    with pytest.raises(ValueError, match=r"turn 2 .*no end token"):
        list(to_examples([{"messages": TURNS}], tokenizer))


def test_the_words_of_a_template_that_refuses_a_row_are_reported_with_the_row(tmp_path):
    tokenizer = with_template(
        tmp_path,
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system here, please') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    with pytest.raises(ValueError, match=r"1 of 2 rows .*\(rows? 1\b.*No system here, please"):
        list(to_examples([{"messages": TURNS[1:]}, {"messages": TURNS}], tokenizer))


def test_content_is_given_as_parts_to_a_template_that_drops_strings(tmp_path):
    tokenizer = with_template(
        tmp_path,
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'text' %}"
        "{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    assert supervised(render_chat(TURNS, tokenizer)) == ["In Paris.<|im_end|>", "In Rome,\nby now.<|im_end|>"]


def test_parts_of_text_are_joined_for_a_template_that_wants_a_string(tokenizer):
    parts = [{"type": "text", "text": "In "}, {"type": "text", "text": "Paris."}]
    in_parts = [*TURNS[:2], {"role": "assistant", "content": parts}]
    assert render_chat(in_parts, tokenizer) == render_chat(TURNS[:3], tokenizer)


def test_fields_that_arrow_filled_in_are_left_out(tmp_path):
    tokenizer = with_template(tmp_path, TOOL_TEMPLATE)
    filled = [{**turn, "tool_calls": turn.get("tool_calls"), "name": turn.get("name")} for turn in TOOL_TURNS]
    assert list(to_examples([{"messages": filled}], tokenizer)) == [render_chat(TOOL_TURNS, tokenizer)]


def test_tool_arguments_as_json_text_are_those_as_a_dict(tmp_path):
    tokenizer = with_template(tmp_path, TOOL_TEMPLATE)
    call = {"type": "function", "function": {"name": "f", "arguments": '{"city": "Rome"}'}}
    as_text = [TOOL_TURNS[0], {"role": "assistant", "tool_calls": [call]}, *TOOL_TURNS[2:]]
    assert render_chat(as_text, tokenizer) == render_chat(TOOL_TURNS, tokenizer)


def test_tools_reach_the_template_as_a_list_or_as_json_text(tmp_path):
    tokenizer = with_template(tmp_path, TOOL_TEMPLATE)
    tools = [{"type": "function", "function": {"name": "f"}}]
    rows = [{"messages": TOOL_TURNS, "tools": tools}, {"messages": TOOL_TURNS, "tools": json.dumps(tools)}]
    first, second = to_examples(rows, tokenizer)
    assert first == second
    assert first.text.startswith("<tools>f")


def test_tools_and_tool_calls_that_the_template_would_leave_out_are_reported(tokenizer, tmp_path):
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(ValueError, match=r"leaves its tools out; pass one .* to from_pretrained \(chat_template="):
        list(to_examples([{"messages": TURNS, "tools": tools}], tokenizer))
    called = [{"function": {"name": "f", "arguments": {}}}]
    calls = [*TURNS[:2], {**TURNS[2], "tool_calls": called}]
    with pytest.raises(ValueError, match=r"leaves its tool calls out; pass one .* to from_pretrained \(chat_template="):
        list(to_examples([{"messages": calls}], tokenizer))
    without_words = [*TURNS[:2], {"role": "assistant", "tool_calls": called}]
    stumbles = with_template(tmp_path, "{% for m in messages %}{{ m.role + ': ' + m.content }}\n{% endfor %}")
    with pytest.raises(ValueError, match="leaves its tool calls out"):
        list(to_examples([{"messages": without_words}], stumbles))
    with pytest.raises(ValueError, match="leaves its tools out"):
        list(to_examples([{"messages": without_words, "tools": tools}], stumbles))


@pytest.mark.parametrize(
    ("template", "why"),
    [
        # What follows an answer tells its length.
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ m.content | length }}\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
            "what follows it differently",
        ),
        # An answer is opened by the length of the question, and the generation prompt by nothing alike.
        (
            "{% for m in messages %}<|im_start|>{{ loop.previtem.content | length if loop.previtem }}{{ m.role }}\n"
            "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>0assistant\n{% endif %}",
            "what precedes it differently",
        ),
        # A turn ends in other words when it is the last, and in no token.
        (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ ' (end)' if loop.last else ' (more)' }}{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}",
            "in no end token",
        ),
        # An answer is hidden while it is the last turn.
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if not loop.last or m.role == 'user' %}{{ m.content }}"
            "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
            "leaves its content out",
        ),
    ],
)
def test_a_template_whose_words_depend_on_the_answer_is_refused(tmp_path, template, why):
    with pytest.raises(ValueError, match=why):
        render_chat(TURNS, with_template(tmp_path, template))


def test_a_tool_call_without_a_generation_prompt_is_refused(tmp_path):
    template = TOOL_TEMPLATE.partition("{% if add_generation_prompt %}")[0]
    with pytest.raises(ValueError, match="no generation prompt"):
        render_chat(TOOL_TURNS[:2], with_template(tmp_path, template))
