"""How sure a number over rows is: bootstrap intervals and the exact sign test, over the same rows twice.

A score is a function of sums over rows: a mean of (value, 1), a perplexity of (nats, tokens), a BLEU of its counts. So
whatever a metric reports is resampled by rows in one way, and two models' scores on the same rows draw the same rows.
Arrays only; nothing here knows models. Shapes: N rows, K terms.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Total = Callable[[np.ndarray], np.ndarray]  # sums (..., K) of rows' terms -> scores (...)

LEVEL = 0.95  # how often an interval holds the true value
RESAMPLES = 9_999  # SciPy's own number (scipy.stats.bootstrap, 1.17)
_AT_ONCE = 2**20  # how many numbers are drawn together


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def mean_of_rows(sums: np.ndarray) -> np.ndarray:
    """The score of terms (value, weight): a weighted mean."""
    return sums[..., 0] / sums[..., 1]


def interval_of(
    total: Total, terms: np.ndarray, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The expanded percentile bootstrap interval of `total` of the summed `terms` (N, K).

    The draws are those of `scipy.stats.bootstrap` with `rng=default_rng(seed)`, the percentiles those at `tail`. Of
    rows that are all alike it is a point, whatever the truth may be, and of one row it is everything.
    """
    rows = len(terms)
    if rows < 2:
        return Interval(-math.inf, math.inf)
    random, at_once = np.random.default_rng(seed), max(1, _AT_ONCE // terms.size)
    found = []
    for start in range(0, resamples, at_once):
        drawn = random.integers(0, rows, (min(at_once, resamples - start), rows))
        found.append(total(terms[drawn].sum(axis=1)))
    low, high = np.quantile(np.concatenate(found), [tail(rows, level), 1 - tail(rows, level)])
    return Interval(float(low), float(high))


def tail(rows: int, level: float = LEVEL) -> float:
    """Which quantile of the draws an interval of N `rows`, N > 1, begins at: a bit less than half of 1 - level.

    Plain percentiles are too narrow for few rows, as a normal interval is that takes z and divides by N; with these the
    interval of a mean is as wide as Student's (Hesterberg, What Teachers Should Know About the Bootstrap, 2015, 5.2).
    """
    return NormalDist().cdf(-math.sqrt(rows / (rows - 1)) * _student((1 + level) / 2, rows - 1))


def _student(quantile: float, freedom: int) -> float:
    """The quantile of Student's t, by the expansion around the normal one (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(quantile)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def interval_of_difference(
    before: np.ndarray, after: np.ndarray, total: Total, *, level: float = LEVEL, **options: int
) -> Interval:
    """That of total(after) - total(before), terms (N, K) of the same rows; `options` are `interval_of`'s."""
    width = before.shape[1]

    def difference(sums: np.ndarray) -> np.ndarray:
        return total(sums[..., width:]) - total(sums[..., :width])

    return interval_of(difference, np.concatenate([before, after], axis=1), level=level, **options)


def sign_test(up: int, down: int) -> float:
    """The two-sided p of `up` rows that rose and `down` that fell, were either as likely as the other.

    Exact, by the binomial distribution; of right and wrong it is McNemar's test. Rows that stay say nothing.
    """
    changed = up + down
    tail = sum(math.comb(changed, count) for count in range(min(up, down) + 1))
    return min(1.0, 2 * tail / 2**changed)


def least_conclusive(level: float = LEVEL) -> int:
    """How many rows have to change, all in one direction, before the sign test can tell them from chance."""
    return math.ceil(math.log2(2 / (1 - level)))


def most_unseen(rows: int, level: float = LEVEL) -> float:
    """The largest share of all rows that may be otherwise although none of `rows` was: 3 / rows, or a bit less.

    The exact one-sided bound of Clopper and Pearson (1934) where nothing was counted.
    """
    return 1 - (1 - level) ** (1 / rows)
