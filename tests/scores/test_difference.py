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


def test_where_less_is_better_a_fall_is_a_gain():
    random = np.random.default_rng(0)
    before = random.gamma(2.0, 2.0, 60)
    after = before - random.random(60)
    found = difference("perplexity", before, after, higher_is_better=False)
    assert found.verdict == "better"
    assert found.gain == pytest.approx(float((before - after).mean()))
    assert "60 of 60 rows are better, 0 worse: better, p < 0.0001" in found.sentence


def test_noise_without_a_shift_is_undecided():
    random = np.random.default_rng(1)
    before = random.random(50)
    assert difference("chrf", before, before + random.normal(0, 0.1, 50)).verdict == "undecided"
