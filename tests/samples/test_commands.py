"""Commands to a home and their JSON, read back from the sentences by a program of its own."""

import doctest
import json
import re

import pytest

from tunebook.samples import commands
from tunebook.samples.commands import ASKED, home_commands


def sentence(row):
    asked, said = row["messages"][0]["content"].split("\n")
    assert asked == ASKED
    return said


def meant(row):
    return json.loads(row["messages"][1]["content"])


def understood(said):
    """What a sentence asks for, by rules of its own."""
    words = re.findall(r"\w+", said)
    (device,) = [word for word in words if word in commands.DEVICES]
    (room,) = [word for word in words if word in commands.ROOMS]
    off = re.search(r"\boff\b|\bstop\b|Nobody", said) is not None
    return {"device": device, "room": room, "state": "off" if off != said.startswith("Why") else "on"}


def test_the_json_is_what_the_sentence_says():
    rows = home_commands(len(commands.DEVICES) * len(commands.ROOMS) * 12)
    assert [meant(row) for row in rows] == [understood(sentence(row)) for row in rows]


def test_no_sentence_comes_twice_and_both_states_are_asked_for():
    rows = home_commands()
    assert len({sentence(row) for row in rows}) == len(rows) == 320
    assert 130 < sum(meant(row)["state"] == "on" for row in rows) < 190


def test_the_rows_are_the_same_for_a_seed_and_a_shorter_list_is_the_beginning_of_a_longer_one():
    assert home_commands(20) == home_commands(40)[:20]
    assert home_commands(20, seed=1) != home_commands(20)
    assert doctest.testmod(commands).failed == 0


def test_more_rows_than_there_are_sentences_are_refused():
    with pytest.raises(ValueError, match="1 to 768"):
        home_commands(769)
