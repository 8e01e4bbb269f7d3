"""Marks side by side: what tables and pictures show, and when a gate holds."""

import html
import json
from dataclasses import replace
from importlib import util
from xml.etree import ElementTree

import numpy as np
import pytest

from tunebook import scores
from tunebook.scores.marks import Answered
from tunebook.scores.metrics.metric import Mark
from tunebook.scores.reports import write_report

EXACT, PERPLEXITY = scores.exact_match(), scores.perplexity()


def marks(name: str, right: int, rows: int = 40, nats: float = 2.0, exam: str = "x") -> scores.Marks:
    """Of a model that has the first `right` of `rows` right; the nats of each row go up and down around `nats`."""
    made = [
        Answered(
            number=number,
            prompt="<b>What?</b>",
            reference="yes",
            answer="yes" if number < right else "no",
            marks={
                "exact_match": Mark(float(number < right), (float(number < right), 1.0)),
                "perplexity": Mark(float(np.exp(nats)), (nats * 10 + number % 3, 10.0)),
            },
        )
        for number in range(rows)
    ]
    return scores.Marks(name=name, exam=exam, metrics=(EXACT, PERPLEXITY), rows=tuple(made))


BASE, BETTER, SAME = marks("base", 10), marks("tuned", 22, nats=1.5), marks("q4", 12)


def test_a_score_is_shown_with_its_interval_and_how_many_rows_it_is_of():
    assert BETTER["exact_match"] == 22 / 40
    assert BETTER["exact_match"] in BETTER.interval("exact_match")
    shown = repr(BETTER).splitlines()
    assert shown[0].split() == ["tuned:", "metric", "score", "95%", "interval", "rows"]
    assert shown[1].split() == ["exact_match", "0.55", "0.4", "to", "0.7", "40"]


def test_where_all_rows_are_right_or_all_wrong_the_interval_leaves_room_for_others():
    right, wrong = marks("right", 40).interval("exact_match"), marks("wrong", 0).interval("exact_match")
    assert (right.high, wrong.low) == (1.0, 0.0)
    assert right.low**40 == pytest.approx(0.05)  # as rarely does a model of this score have 40 of 40 right
    assert (1 - wrong.high) ** 40 == pytest.approx(0.05)
    alone = marks("alone", 1, rows=1)
    assert alone.sentence("exact_match") == "exact_match: 1 over 1 row, 95% interval 0.05 to 1."


def test_a_table_says_of_each_difference_whether_it_can_be_told_from_chance():
    comparison = scores.compare(BASE, BETTER, SAME)
    text, page = repr(comparison), comparison._repr_html_()
    assert "0.55 (+0.3, better)" in text
    assert "0.3 (+0.05, not told from chance)" in text
    assert "tuned: exact_match: 12 of 40 flipped to right, 0 to wrong: better, p = 0.00049; " in text
    assert "q4: exact_match: 2 of 40 flipped to right, 0 to wrong: cannot be told from chance, p = 0.5" in text
    assert "tuned: perplexity: 40 of 40 rows are better, 0 worse: better" in text
    assert html.escape(comparison.sentences[0]) in page


def test_what_is_in_a_name_is_text_in_a_page():
    assert "<script>" not in scores.compare(BASE, marks("<script>", 3))._repr_html_()


def test_a_frame_has_a_row_for_each_model_and_metric(monkeypatch):
    frame = scores.compare(BASE, BETTER).frame()
    assert frame.shape == (4, 12)
    row = frame[(frame.model == "tuned") & (frame.metric == "exact_match")].iloc[0]
    assert (row.score, row.change, row.verdict) == (0.55, pytest.approx(0.3), "better")
    monkeypatch.setattr("tunebook.scores.compared.comparison.find_spec", lambda name: None)
    assert [row["score"] for row in scores.compare(BASE, BETTER).frame()][::2] == [0.25, 0.55]
    assert util.find_spec("pandas")


@pytest.mark.parametrize("dark", [False, True])
def test_a_picture_has_a_panel_for_each_metric_and_to_the_right_is_better(dark):
    figure = scores.compare(BASE, BETTER, SAME).picture(dark=dark)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["exact_match", "perplexity (less is better)"]
    low, high = figure.axes[1].get_xlim()
    assert low > high
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["tuned", "q4"]


def test_a_gate_holds_where_a_gain_is_large_and_sure_and_says_what_can_be_concluded_where_not():
    BETTER.require(better_than=BASE, by=0.05)
    BETTER.require(better_than=BASE, metric="perplexity")
    BETTER.require(at_least=0.5)
    with pytest.raises(scores.ScoreTooLow, match=r"q4 is to be better than base\. exact_match: 2 of 40 flipped"):
        SAME.require(better_than=BASE)
    with pytest.raises(scores.ScoreTooLow, match=r"tuned is to be better than base by 0\.5\. exact_match: 12 of 40"):
        BETTER.require(better_than=BASE, by=0.5)
    with pytest.raises(scores.ScoreTooLow, match=r"exact_match of tuned is 0\.55 over 40 rows .* at least 0\.8 is req"):
        BETTER.require(at_least=0.8)
    with pytest.raises(scores.ScoreTooLow, match="at most 3 is required"):
        BETTER.require(at_least=3, metric="perplexity")


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"at_least": float("nan")}, "at_least is nan"),
        ({"better_than": BASE, "by": float("nan")}, "by is nan"),
        ({"by": 0.05}, "no model to be better by that than; pass better_than"),
    ],
)
def test_a_bound_that_no_score_could_miss_is_refused(bounds, said):
    with pytest.raises(ValueError, match=said):
        BETTER.require(**bounds)


def test_a_score_that_is_no_number_is_no_pass():
    broken = scores.Metric(name="exact_match", judge=lambda *_: 1.0, total=lambda sums: sums[..., 0] * np.nan)
    found = replace(BETTER, metrics=(broken,))
    with pytest.raises(scores.ScoreTooLow, match="exact_match of tuned is nan over 40 rows"):
        found.require(at_least=0.0)


def test_a_base_without_a_score_is_nothing_to_be_better_than():
    unscored = tuple(replace(row, marks={"exact_match": Mark(None, reason="it raised")}) for row in BASE.rows)
    for bound in ("better_than", "no_worse_than"):
        with pytest.raises(scores.ScoreTooLow, match=r"with base, of which exact_match: no row is scored\."):
            BETTER.require(**{bound: replace(BASE, rows=unscored)})


def test_marks_of_different_exams_are_not_compared():
    with pytest.raises(ValueError, match="different exams"):
        scores.compare(BASE, marks("other", 3, exam="y"))
    with pytest.raises(ValueError, match="two or more"):
        scores.compare(BASE)
    with pytest.raises(KeyError, match="there are exact_match, perplexity"):
        BASE["bleu"]


def test_marks_are_values_that_json_takes():
    plain = json.loads(json.dumps(BETTER.as_plain(), allow_nan=False))
    assert plain["scores"]["exact_match"] == 0.55
    assert plain["rows"][0]["marks"] == {"exact_match": 1.0, "perplexity": pytest.approx(np.exp(1.5))}


@pytest.mark.parametrize("suffix", [".json", ".xml"])
def test_a_report_takes_any_character_that_a_program_complains_with(tmp_path, suffix):
    odd = Mark(None, reason="\x00 \x1b[31m \ud83d ]]> & <b>")
    rows = tuple(replace(row, marks={"exact_match": odd}) for row in BASE.rows[:2])
    made = replace(BASE, name='a"<\x0b\ud83d', metrics=(EXACT,), rows=rows)
    write_report(tmp_path / f"report{suffix}", [made], [odd.reason])
    text = (tmp_path / f"report{suffix}").read_text(encoding="utf-8")
    if suffix == ".json":
        assert json.loads(text)["failures"] == [odd.reason]
    else:
        assert ElementTree.fromstring(text).find(".//failure") is not None
