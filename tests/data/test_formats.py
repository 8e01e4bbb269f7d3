import json
from collections.abc import Sequence

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AutoTokenizer

from tests.makers.tiny import tiny_tokenizer
from tunebook.data.examples import Tokens
from tunebook.data.formats import reader, render_chat, supervise_between, to_examples

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where are you?"},
    {"role": "assistant", "content": "In Paris."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "In Rome,\nby now."},
]


# A template with tools, and a conversation that calls one.
TOOL_TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool.function.name }}{% endfor %}\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if 'tool_calls' in m %}"
    "{% for call in m.tool_calls %}<tool_call>{{ call.function.name }} {{ call.function.arguments | tojson }}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL_TURNS = [
    {"role": "user", "content": "How warm is it in Rome?"},
    {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"city": "Rome"}}}],
    },
    {"role": "tool", "content": "12", "name": "f"},
    {"role": "assistant", "content": "12 degrees."},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return TokenizerWrapper(AutoTokenizer.from_pretrained(folder))


def with_template(folder, template):
    tiny_tokenizer(folder, chat_template=template)
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
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "part of type 'image'; this is a text model",
        ),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "first turn is the assistant's"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"arguments": "{"}]}]}, "not valid JSON"),
        ({"messages": TURNS, "tools": "{"}, "'tools' are not valid JSON"),
        ({"conversations": [{"value": "Hi"}]}, "neither 'from' nor 'role'"),
        ({"prompt": "Hi", "completion": TURNS}, "the other a list of messages"),
        ({"instruction": "Hi", "input": 3, "output": "Ho"}, "'input' is a int"),
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
    with pytest.raises(ValueError, match=r"1 of 2 rows .*first: row 1.*No system here, please"):
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


def test_a_tool_call_is_supervised_and_the_tools_output_is_not(tmp_path):
    tokenizer = with_template(tmp_path, TOOL_TEMPLATE)
    assert supervised(render_chat(TOOL_TURNS, tokenizer)) == [
        '<tool_call>f {"city": "Rome"}<|im_end|>',
        "12 degrees.<|im_end|>",
    ]


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


def test_tools_and_tool_calls_that_the_template_would_leave_out_are_reported(tokenizer):
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(ValueError, match="leaves its tools out"):
        list(to_examples([{"messages": TURNS, "tools": tools}], tokenizer))
    calls = [*TURNS[:2], {**TURNS[2], "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]
    with pytest.raises(ValueError, match="leaves its tool calls out"):
        list(to_examples([{"messages": calls}], tokenizer))


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


def test_answers_in_a_prompt_of_messages_are_context(tokenizer):
    [example] = to_examples([{"prompt": TURNS[:4], "completion": TURNS[4:]}], tokenizer)
    assert supervised(example) == ["In Rome,\nby now.<|im_end|>"]
    assert example.text == render_chat(TURNS, tokenizer).text


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


def test_labels_of_minus_100_are_not_supervised(tokenizer):
    masked, whole = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [5, 6, 7]}
    assert [example.parts for example in to_examples([masked, whole], tokenizer)] == [
        (Tokens((5, 6, 7), (False, True, True)),),
        (Tokens((5, 6, 7), (True, True, True)),),
    ]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"input_ids": [5, 512]}, r"first: row 1.*'input_ids' holds 512 at position 1; the vocabulary ends at 511"),
        ({"input_ids": [-1]}, "holds -1 at position 0"),
        ({"input_ids": [5.0]}, "whole numbers"),
        ({"input_ids": [[1, 2], [3]]}, "whole numbers"),
        ({"input_ids": [1, [2]]}, "whole numbers"),
        ({"input_ids": [[1, 2], [3, 4]]}, "whole numbers"),
        ({"input_ids": [1, 2], "labels": [[1], [1, 2]]}, "whole numbers"),
        ({"input_ids": [2**63]}, "holds 9223372036854775808"),
        ({"input_ids": []}, "is empty"),
        ({"input_ids": [5, 6], "labels": [5]}, "'labels' has 1 entries and 'input_ids' 2"),
        ({"input_ids": [5, 6], "labels": [6, 5]}, "'labels' holds 6 at position 0"),
        ({"input_ids": [5, 6], "labels": [-100, -100]}, "every one of its labels is -100"),
    ],
)
def test_token_ids_that_cannot_be_trained_on_are_named_with_their_place(tokenizer, row, complaint):
    with pytest.raises(ValueError, match=complaint):
        list(to_examples([{"input_ids": [1]}, row], tokenizer))


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
    with pytest.raises(ValueError, match=r"1 of 2 rows .*first: row 1.*'A:'"):
        list(to_examples([{"text": "Q: a A: b"}, {"text": "Q: a"}], tokenizer, response_markers=("Q:", "A:")))


def test_rows_are_recognised_in_one_pass_and_read_one_by_one(tokenizer):
    class Counted(Sequence):
        reads = 0

        def __len__(self):
            return 50

        def __getitem__(self, index):
            if index >= 50:
                raise IndexError(index)
            self.reads += 1
            return {"text": f"row {index}"}

    rows = Counted()
    read = reader(rows, tokenizer)
    assert rows.reads == 50
    assert read(rows[7]).text == "row 7"
    assert reader(rows, tokenizer, "text")(rows[8]).text == "row 8"
    assert rows.reads == 52


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
