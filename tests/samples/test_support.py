"""Chats with a shop, the team of each told from the words of its question by rules of its own."""

import doctest
import re
from collections import Counter

import pytest

from tunebook.samples import support
from tunebook.samples.support import support_chats

# A word of each pattern, which no pattern of another team has.
TELLTALE = {
    "billing": r"charged|invoice|price|card",
    "delivery": r"Where|Monday|address|door",
    "returns": r"back\.|return|picture|mind",
    "repairs": r"broke|switch|noise|loose",
}


def exchange(row):
    asked, answered = row["messages"]
    assert (asked["role"], answered["role"]) == ("user", "assistant")
    return asked["content"], answered["content"]


def test_the_answer_repeats_the_order_and_names_the_team_that_the_question_is_for():
    for asked, answered in map(exchange, support_chats(400)):
        [order] = re.findall(r"\d{4}", asked)
        [team] = [team for team, words in TELLTALE.items() if re.search(words, asked)]
        assert answered == f"Order {order} is with our {team} team."


def test_no_order_comes_twice_and_every_team_is_asked_equally_often():
    told = [exchange(row)[1].split() for row in support_chats(400)]
    assert len({words[1] for words in told}) == 400
    assert set(Counter(words[-2] for words in told).values()) == {100}


def test_the_rows_are_the_same_for_a_seed_and_a_shorter_list_is_the_beginning_of_a_longer_one():
    assert support_chats(20) == support_chats(40)[:20]
    assert support_chats(20, seed=1) != support_chats(20)
    assert doctest.testmod(support).failed == 0


def test_more_rows_than_there_are_orders_are_refused():
    with pytest.raises(ValueError, match="1 to 9000"):
        support_chats(9001)
