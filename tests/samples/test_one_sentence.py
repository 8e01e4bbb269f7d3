"""Pairs of answers that a rule of one line tells apart, judged against the docstrings they were made from."""

import doctest

import pytest

from tunebook import hold_out
from tunebook.samples import one_sentence
from tunebook.samples.one_sentence import is_one_sentence, one_sentence_pairs
from tunebook.samples.sets import python_docs


@pytest.fixture(scope="module")
def rows():
    return one_sentence_pairs()


@pytest.fixture(scope="module")
def pairs(rows):
    """The rows as texts."""
    return [{column: turn["content"] for column, [turn] in row.items()} for row in rows]


@pytest.fixture(scope="module")
def written():
    """What the authors wrote about each function, by question, on one line."""
    docs = python_docs(source_characters=(40, 220), answer_characters=(30, 10_000))
    rows = [[turn["content"] for turn in row["messages"]] for row in docs]
    answers = {question: [] for question, _ in rows}
    for question, answer in rows:
        answers[question].append(" ".join(answer.split()))
    return answers


@pytest.mark.parametrize(
    "answer",
    ["Return the sum of both.", "  Return x.y and 1.5 of it.\n", "Return `a`, or b;\nthen c."],
)
def test_one_sentence_with_its_full_stop_passes(answer):
    assert is_one_sentence(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Return the sum",  # breaks off
        "Return the sum of",
        "Is it the sum?",
        "Return the sum. It is exact.",
        "Return the sum. It is",
        "This function returns:\n\n- the sum.",
        "Sure! It returns the sum.",
        "Return the sum.```",
    ],
)
def test_whatever_else_does_not(answer):
    assert not is_one_sentence(answer)


def test_there_are_a_few_hundred_pairs_and_the_rule_tells_both_sides_of_each(pairs):
    assert 300 < len(pairs) < 1500
    assert all(is_one_sentence(pair["chosen"]) and not is_one_sentence(pair["rejected"]) for pair in pairs)


def test_each_chosen_answer_is_what_the_author_begins_with(pairs, written):
    for pair in pairs:
        assert any(answer.startswith(pair["chosen"]) for answer in written[pair["prompt"]])


def test_each_rejected_answer_goes_on_as_the_author_does_or_is_a_part_of_the_chosen_one(pairs, written):
    for longer, shorter in zip(pairs[::2], pairs[1::2], strict=True):
        assert any(answer.startswith(longer["rejected"]) for answer in written[longer["prompt"]])
        assert longer["rejected"].startswith(longer["chosen"] + " ")
        assert shorter["chosen"].startswith(shorter["rejected"] + " ")


def test_in_half_of_the_pairs_the_chosen_answer_is_the_shorter_one(pairs):
    assert 2 * sum(len(pair["chosen"]) < len(pair["rejected"]) for pair in pairs) == len(pairs)


def test_no_function_and_no_chosen_answer_comes_twice_so_none_is_on_both_sides_of_a_split(pairs):
    train, held_out = hold_out(pairs, 50)
    assert len(train) + len(held_out) == len(pairs)
    for side in ("prompt", "chosen"):
        assert {pair[side] for pair in train}.isdisjoint(pair[side] for pair in held_out)


def test_a_row_is_a_chat_so_that_it_is_read_through_the_template_the_model_is_asked_with(rows):
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    assert all({column: turn["role"] for column, [turn] in row.items()} == roles for row in rows)


def test_the_rows_are_the_same_each_time(rows):
    assert one_sentence_pairs() == rows


def test_the_examples_in_the_docstrings_show_what_they_say():
    assert doctest.testmod(one_sentence).failed == 0
