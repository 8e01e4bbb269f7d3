"""formats/recognition.py: which format rows have, and the rows that have none, counted and named."""

import re
from collections.abc import Sequence

import pytest

from tests.data.formats.conversations import TURNS
from tunebook.data.formats import reader, to_examples


def test_rows_without_an_answer_are_counted_and_the_first_is_named(tokenizer):
    good, bad = {"messages": TURNS}, {"messages": TURNS[:2]}
    with pytest.raises(ValueError, match=r"2 of 4 rows .*\(rows? 1\b.*no assistant turn"):
        list(to_examples([good, bad, good, bad], tokenizer))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "  "}]}, "turn is empty"),
        ({"messages": [{"content": "Hi"}]}, "'role' and 'content'"),
        ({"messages": [{"role": "user"}]}, r"turn 0 \('user'\) has no 'content'"),
        ({"messages": [{"role": "user", "content": 7}]}, "is 7, not a string"),
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


def test_rows_of_another_format_than_most_are_named_and_two_halves_are_counted(tokenizer):
    chat, text = {"messages": TURNS}, {"text": "a"}
    with pytest.raises(ValueError, match=r"1 of 3 rows .*\(row 2\).*no 'messages' and looks like 'text'"):
        list(to_examples([chat, chat, text], tokenizer))
    with pytest.raises(ValueError, match=r"1 of 2 look like 'messages', 1 of 2 look like 'text'"):
        list(to_examples([chat, text], tokenizer))


def test_columns_that_fit_two_formats_need_a_choice(tokenizer):
    row = {"messages": TURNS, "text": "a"}
    with pytest.raises(ValueError, match="Pass format="):
        list(to_examples([row], tokenizer))
    assert [example.text for example in to_examples([row], tokenizer, format="text")] == ["a"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"input_ids": [5, 512]}, r"\(rows? 1\b.*'input_ids' holds 512 at position 1; the vocabulary ends at 511"),
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


Q, A, B = (
    [{"role": role, "content": text}] for role, text in (("user", "Hi"), ("assistant", "Ho"), ("assistant", "No"))
)


@pytest.mark.parametrize(
    "pair",
    [
        {"prompt": Q, "chosen": A, "rejected": B},
        {"prompt": "Hi", "chosen": A, "rejected": B},
        {"prompt": "Hi", "chosen": Q + A, "rejected": Q + B},
        {"prompt": Q, "chosen": Q + A, "rejected": Q + B},
    ],
)
def test_the_call_that_reads_preferences_without_an_objective_keeps_their_question(tokenizer, pair):
    with pytest.raises(ValueError, match="formatting_func") as refused:
        reader([pair], tokenizer)
    (call,) = re.findall(r"formatting_func=(lambda row: .*)$", str(refused.value))
    (example,) = to_examples([eval(call)(pair)], tokenizer)
    (expected,) = to_examples([{"messages": Q + A}], tokenizer)
    assert example.parts == expected.parts
