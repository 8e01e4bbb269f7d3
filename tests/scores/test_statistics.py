"""How sure a number is: SciPy draws the same rows, and simulated exams show how often an interval is right."""

import numpy as np
import pytest
import scipy.stats

from tunebook.scores.statistics import (
    interval_of,
    interval_of_difference,
    least_conclusive,
    mean_of_rows,
    most_unseen,
    sign_test,
    tail,
)


def of_mean(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones(len(values))], axis=1)


@pytest.mark.parametrize("rows", [7, 40, 300])
def test_an_interval_is_scipys_on_the_same_draws(rows):
    random = np.random.default_rng(rows)
    before, after = random.random(rows), random.random(rows) + 0.1
    ours = interval_of_difference(of_mean(before), of_mean(after), mean_of_rows, seed=4)
    theirs = scipy.stats.bootstrap(
        (before, after),
        lambda first, second, axis: second.mean(axis=axis) - first.mean(axis=axis),
        paired=True,
        method="percentile",
        confidence_level=1 - 2 * tail(rows),
        rng=np.random.default_rng(4),
    ).confidence_interval
    np.testing.assert_allclose((ours.low, ours.high), theirs, rtol=1e-12)


def test_an_interval_of_a_ratio_of_sums_is_scipys_too():
    random = np.random.default_rng(0)
    nats, tokens = random.gamma(2.0, 10.0, 50), random.integers(1, 30, 50).astype(float)

    def perplexity(sums):
        return np.exp(sums[..., 0] / sums[..., 1])

    ours = interval_of(perplexity, np.stack([nats, tokens], axis=1), seed=1)
    theirs = scipy.stats.bootstrap(
        (nats, tokens),
        lambda first, second, axis: np.exp(first.sum(axis=axis) / second.sum(axis=axis)),
        paired=True,
        method="percentile",
        confidence_level=1 - 2 * tail(50),
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose((ours.low, ours.high), theirs, rtol=1e-12)


@pytest.mark.parametrize("rows", [6, 20, 40, 1000])
def test_percentiles_are_moved_out_as_far_as_students_t_is_from_the_normal(rows):
    student = scipy.stats.t.ppf(0.975, rows - 1)
    assert tail(rows) == pytest.approx(scipy.stats.norm.cdf(-np.sqrt(rows / (rows - 1)) * student), rel=0.01)
    assert tail(rows) < 0.025


@pytest.mark.parametrize("method", ["greater", "less", "equal"])
def test_the_sign_test_is_scipys_exact_binomial_test(method):
    for up in range(25):
        down = {"greater": up + 7, "less": max(0, up - 3), "equal": up}[method]
        expected = scipy.stats.binomtest(up, up + down).pvalue if up + down else 1.0
        assert sign_test(up, down) == pytest.approx(expected, rel=1e-12)


def test_as_few_changes_as_are_said_to_be_conclusive_are():
    assert sign_test(least_conclusive(), 0) < 0.05 <= sign_test(least_conclusive() - 1, 0)


@pytest.mark.parametrize("rows", [1, 10, 60, 1000])
def test_what_none_of_so_many_rows_shows_may_still_be_in_as_many_as_scipy_says(rows):
    exact = scipy.stats.binomtest(0, rows, alternative="less").proportion_ci(0.95, method="exact")
    assert most_unseen(rows) == pytest.approx(exact.high)


@pytest.mark.parametrize(("rows", "to_right", "to_wrong"), [(41, 0.3, 0.08), (61, 0.3, 0.08), (107, 0.05, 0.05)])
def test_intervals_hold_the_true_difference_in_93_of_100_simulated_exams(rows, to_right, to_wrong):
    random = np.random.default_rng(17)
    held = 0
    for exam in range(300):
        change = random.choice([1.0, -1.0, 0.0], rows, p=[to_right, to_wrong, 1 - to_right - to_wrong])
        held += to_right - to_wrong in interval_of(mean_of_rows, of_mean(change), resamples=999, seed=exam)
    assert held >= 0.93 * 300
