"""Which rows are in which order, and what is said of one: the numbers of the marks, and of bounded size."""

import json
from dataclasses import replace

import pytest

from tests.widgets.scores.made_marks import marks, surprised
from tunebook_widgets import ScoreView
from tunebook_widgets.scores.score_book import ScoreBook
from tunebook_widgets.scores.score_texts import LONGEST, parted, shown

BASE = marks("base", [0, 1, 0, 1, None, 0], [0.5, 0.2, 0.9, 0.4, 0.1, 0.3], cut=[2])
TUNED = marks("tuned", [1, 0, 0, 1, 1, None], [0.6, 0.1, 0.2, 0.4, 0.8, None])


def orders(book: ScoreBook, metric: str) -> dict[str, list[int]]:
    return {order.name: [book.numbers[place] for place in order.places] for order in book.orders(metric)}


def test_of_two_models_flips_are_those_of_their_difference_and_the_rows_that_got_worse_come_first():
    assert orders(ScoreBook([BASE, TUNED]), "exact_match") == {
        "worst first": [1, 2, 3, 4, 0],
        "wrong": [1, 2],
        "flipped to right": [0],
        "flipped to wrong": [1],
        "cut": [2],
        "not scored": [4, 5],
        "all": [0, 1, 2, 3, 4, 5],
    }
    difference = TUNED.against(BASE)["exact_match"]
    assert (difference.rose, difference.fell) == (1, 1)
    assert ScoreBook([BASE, TUNED]).sentence("exact_match") == difference.sentence


def test_of_a_graded_metric_rows_are_better_or_worse_the_most_changed_first():
    found = orders(ScoreBook([BASE, TUNED]), "graded")
    assert found["worst first"] == [1, 2, 3, 0, 4]
    assert (found["better"], found["worse"], found["not scored"]) == ([4, 0], [2, 1], [5])
    difference = TUNED.against(BASE)["graded"]
    assert (difference.rose, difference.fell) == (2, 2)


def test_where_less_is_better_the_highest_are_the_worst():
    found = orders(ScoreBook([surprised("base", [9.0, 2.0, 5.0]), surprised("tuned", [3.0, 4.0, 5.0])]), "perplexity")
    assert (found["worst first"], found["better"], found["worse"]) == ([2, 1, 0], [0], [1])


def test_one_models_rows_are_right_or_wrong_and_its_sentence_is_that_of_its_marks():
    book = ScoreBook([TUNED])
    assert orders(book, "exact_match").keys() == {"worst first", "wrong", "cut", "not scored", "all"}
    assert book.sentence("exact_match") == TUNED.sentence("exact_match")
    assert TUNED.sentence("exact_match").startswith("exact_match: 0.6 over 5 rows, 95% interval ")
    assert ScoreBook([marks("m", [None, None])]).sentence("exact_match") == "exact_match: no row is scored."


def test_a_row_says_what_every_metric_makes_of_it_and_why_one_makes_nothing():
    row = ScoreBook([BASE, TUNED]).row(5, "exact_match")
    assert row["marks"] == [
        ["exact_match", "wrong", "not scored: no <b>reason</b>"],
        ["graded", "0.3", "not scored: no <b>reason</b>"],
    ]
    assert row["badge"] == "not scored"
    assert ScoreBook([BASE, TUNED]).row(1, "exact_match")["badge"] == "flipped to wrong"
    assert ScoreBook([BASE, TUNED]).line(1, "exact_match")[:3] == [1, "right → wrong", "down"]
    assert ScoreBook([BASE, TUNED]).row(2, "exact_match")["answers"][0]["note"].startswith("✂ cut here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nhm\n</think>\n\n42", ("hm", "42", False)),
        ("hm\n</think>42", ("hm", "42", False)),  # a template may have opened them
        ("<think>hm", ("hm", "", True)),
        ("42 <think>", ("", "42 <think>", False)),
        ("", ("", "", False)),
    ],
)
def test_thoughts_are_parted_from_the_answer(text, expected):
    found = parted(text, ("<think>", "</think>"))
    assert (found.thoughts, found.answer, found.open) == expected


def test_an_answer_cut_in_its_thoughts_is_called_none():
    row = ScoreBook([marks("m", [0], answers=["<think>hm"], cut=[0])]).row(0, "exact_match")
    assert row["answers"] == [
        {"name": "m", "thoughts": "hm", "text": "", "note": "✂ cut in its thoughts: there is no answer"}
    ]


def test_what_crosses_to_the_browser_is_bounded_whatever_the_rows_are():
    long = "\u202e" * 100_000  # each of them is shown as eight letters
    few, many = (
        ScoreView(
            marks(
                "m",
                [0, None] * (rows // 2),
                answers=[long] * rows,
                prompts=[long] * rows,
                references=[long] * rows,
                why=long,
            )
        ).browse()
        for rows in (10, 600)
    )
    sizes = [len(json.dumps([one.view, one.row, one.said], ensure_ascii=False)) for one in (few, many)]
    assert max(sizes) < 30_000
    assert sizes[1] - sizes[0] < 2_000
    assert len(shown(long)) < LONGEST + 100
    assert "… of these 100,000 characters the middle is not shown …" in shown(long)
    assert shown("short\u202e") == "short⟨U+202E⟩"


def test_marks_that_cannot_be_laid_side_by_side_are_refused():
    with pytest.raises(ValueError, match="'base' and 'other' are of different exams"):
        ScoreView(BASE, marks("other", [1], exam="two"))
    with pytest.raises(ValueError, match="0 marks are given"):
        ScoreView()
    with pytest.raises(ValueError, match="no rows"):
        ScoreView(marks("m", []))
    with pytest.raises(ValueError, match=r"no metric 'bleu'.*exact_match, graded"):
        ScoreView(BASE, metric="bleu")


def test_a_row_that_a_metric_is_not_for_is_in_none_of_its_orders_but_all():
    rows = [
        replace(row, marks={"exact_match": row.marks["exact_match"]} if row.number == 1 else row.marks)
        for row in TUNED.rows
    ]
    book = ScoreBook([replace(TUNED, rows=tuple(rows))])
    found = orders(book, "graded")
    assert (found["worst first"], found["not scored"]) == ([2, 3, 0, 4], [5])
    assert 1 in found["all"]
    assert book.line(1, "graded")[1:3] == ["not for this row", ""]
    assert book.row(1, "graded")["marks"] == [["exact_match", "wrong"], ["graded", "not for this row"]]
    assert book.row(1, "graded")["badge"] == ""


def test_two_models_of_one_name_are_told_apart():
    assert ScoreBook([TUNED, TUNED]).names == ["tuned (1)", "tuned (2)"]
