"""What is said of two models' scores: never more than the rows can bear."""

import numpy as np
import pytest

from tunebook.scores.compared.difference import difference


def flips(to_right: int, to_wrong: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.zeros(rows), np.zeros(rows)
    after[:to_right] = 1
    before[to_right : to_right + to_wrong] = 1
    return before, after


def test_a_sure_gain_is_said_with_its_rows_its_p_and_its_size():
    found = difference("exact_match", *flips(12, 3, 40))
    assert found.verdict == "better"
    assert found.sentence.startswith("exact_match: 12 of 40 flipped to right, 3 to wrong: better, p = 0.035; ")
    assert "0.075 -> 0.3, +0.22 (95% interval +0.05 to +0.4)" in found.sentence


def test_a_sure_loss_is_worse():
    assert difference("exact_match", *flips(3, 12, 40)).verdict == "worse"


def test_few_flips_are_called_what_they_are():
    found = difference("exact_match", *flips(5, 0, 40))
    assert found.verdict == "undecided"
    assert "cannot be told from chance, p = 0.062" in found.sentence
    assert "fewer than 6 changes prove nothing, so ask more rows" in found.sentence


def test_no_flip_among_few_rows_does_not_say_that_there_is_none():
    found = difference("exact_match", *flips(0, 0, 10))
    assert found.sentence == (
        "exact_match: none of 10 rows changed: no difference, and at most 26% of such rows would show one."
    )
    assert 0.2 in found.interval


def test_where_all_rows_flipped_the_interval_leaves_room_for_those_that_would_not():
    up, down = (difference("exact_match", *flips(*some, 8)).interval for some in ((8, 0), (0, 8)))
    rarest = 0.05 ** (1 / 8)  # the share that flips, of which 8 of 8 are seen in one exam of twenty
    assert (up.low, up.high) == (pytest.approx(rarest - (1 - rarest)), 1.0)
    assert (down.low, down.high) == (-1.0, pytest.approx(-up.low))


def test_where_less_is_better_a_fall_is_a_gain():
    random = np.random.default_rng(0)
    before = random.gamma(2.0, 2.0, 60)
    after = before - random.random(60)
    found = difference("perplexity", before, after, higher_is_better=False)
    assert found.verdict == "better"
    assert found.gain == pytest.approx(float((before - after).mean()))
    assert "60 of 60 rows are better, 0 worse: better; " in found.sentence


def test_noise_without_a_shift_is_undecided():
    random = np.random.default_rng(1)
    before = random.random(50)
    assert difference("chrf", before, before + random.normal(0, 0.1, 50)).verdict == "undecided"


def outweighed(rows):
    """Two of ten rows rise by 4, the others fall by 0.1: the mean rises, and most rows fall."""
    before = np.random.default_rng(2).random(rows)
    return before, before + np.where(np.arange(rows) % 5 == 0, 4.0, -0.1)


def test_a_verdict_names_what_it_goes_by_and_no_test_that_says_otherwise():
    found = difference("perplexity", *outweighed(60), higher_is_better=False)
    assert found.verdict == "worse"
    assert found.p is None  # a sign test would say that it is better, for 48 of 60 rows are
    assert found.sentence.startswith("perplexity: 48 of 60 rows are better, 12 worse: worse; ")
    assert found.sentence.endswith(", without 0); the fewer rows outweigh the others.")
    assert "p = " not in found.sentence


@pytest.mark.parametrize("seed", range(40))
def test_no_sentence_of_a_graded_metric_contradicts_its_verdict(seed):
    random = np.random.default_rng(seed)
    before = random.gamma(2.0, 2.0, 20)
    found = difference("chrf", before, before + random.normal(0.1, 0.2, 20))
    held = f"{'in which 0 is' if found.interval.low <= 0 <= found.interval.high else 'without 0'})"
    assert held in found.sentence
    assert ("cannot be told from chance; " in found.sentence) == (found.verdict == "undecided")
    assert (found.verdict == "undecided") == ("in which 0 is" in found.sentence)
