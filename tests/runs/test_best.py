"""What is the best of a run, checked against the plain maximum and minimum, and what can never be it."""

import math

import pytest

from tunebook.events import EvalEvent, ScoreEvent
from tunebook.runs.best import BY_LOSS, Measured, Yardstick, past_the_best

UP = Yardstick(metric="right", exam="a", higher_is_better=True)
DOWN = Yardstick(metric="right", exam="a")


def series(*values, missing=()):
    missing = missing or [0] * len(values)
    return [
        Measured(step=10 * at, value=value, not_scored=missing[at] if missing else 0) for at, value in enumerate(values)
    ]


def scored(step, value, exam="a", **fields):
    return ScoreEvent(step=step, scores={"right": value}, rows=4, seconds=0.0, exam=exam, **fields)


@pytest.mark.parametrize(("by", "extreme"), [(UP, max), (DOWN, min), (BY_LOSS, min)])
def test_the_best_is_the_extreme_in_the_direction_of_the_metric_and_of_equals_the_earliest(by, extreme):
    values = [0.3, 0.8, 0.1, 0.8, 0.1]
    best = by.best(series(*values))
    assert (best.value, best.step) == (extreme(values), 10 * values.index(extreme(values)))


@pytest.mark.parametrize("by", [UP, DOWN])
def test_what_is_not_finite_is_never_the_best(by):
    assert by.best(series(math.nan, math.inf, -math.inf, 0.5)).value == 0.5
    assert by.best(series(math.nan)) is None
    assert by.best([]) is None


def test_a_score_over_fewer_rows_is_not_the_best_and_says_why():
    measured = series(0.5, 0.9, missing=[1, 2])
    assert UP.best(measured).value == 0.5
    assert UP.passed_over(measured) == (
        "right could not judge 2 rows at step 10 and 1 at step 0, so it is not the best"
    )
    assert UP.passed_over(measured[:1]) is None
    assert UP.passed_over(series(math.nan)) == "right has no finite value at step 0, so it is not the best"
    # One over more rows is the best whatever it is: those before it had the easy ones.
    assert UP.best([*measured, Measured(step=20, value=0.4)]).value == 0.4


@pytest.mark.parametrize(
    ("values", "lost"), [([0.2, 0.3], False), ([0.3, 0.3, 0.3], True), ([0.3, math.nan, 0.2], True), ([0.1], False)]
)
def test_patience_counts_what_came_after_the_best(values, lost):
    assert UP.patience_is_lost(series(*values), 2) is lost
    assert not UP.patience_is_lost(series(*values), None)


def test_losses_count_without_a_metric_and_else_scores_of_this_exam_and_of_both_what_nobody_asked_for():
    losses = [EvalEvent(step=step, loss=2.0 - step, rows=1, tokens=1, seconds=0.0, asked=step == 1) for step in (0, 1)]
    marks = [scored(0, 0.1), scored(3, 0.9, asked=True), scored(4, 0.8, exam="b"), scored(5, 0.2)]
    assert BY_LOSS.measured(losses, marks) == [Measured(step=0, value=2.0)]
    assert [(one.step, one.value) for one in UP.measured(losses, marks)] == [(0, 0.1), (5, 0.2)]


LOSSES = [(0, 3.0), (10, 2.0), (19, 1.5)]


@pytest.mark.parametrize(
    ("by", "values", "losses", "said"),
    [
        (UP, (0.1, 0.5, 0.25), LOSSES, "right was 0.5 at step 10 and is 0.25 at step 20, though the held-out loss"),
        (DOWN, (0.1, 0.5, 0.25), LOSSES, "right was 0.1 at step 0 and is 0.25 at step 20, though the held-out loss"),
        (UP, (0.5, 0.25), LOSSES[:1], "right was 0.5 at step 0 and is 0.25 at step 10"),
        (UP, (0.5, 0.25), [(0, 1.0), (10, 2.0)], "right was 0.5 at step 0 and is 0.25 at step 10"),
    ],
)
def test_a_run_past_its_best_says_so_and_whether_the_loss_fell_meanwhile(by, values, losses, said):
    found = past_the_best(by, series(*values), losses)
    assert found.startswith(said)
    assert ("still fell" in found) == ("though" in said)


@pytest.mark.parametrize("values", [(0.1, 0.5), (0.5, 0.5), (), (0.5, math.nan)])
def test_a_run_at_its_best_or_as_good_or_without_a_number_is_not_past_it(values):
    assert past_the_best(UP, series(*values), LOSSES) is None
