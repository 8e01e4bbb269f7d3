"""Exact tests on paired differences: how likely is so large a one if either of a pair could as well be the other?

All sign patterns are counted, so a p-value is a fraction and no distribution is assumed. With n pairs it is never below
2 / 2**n: five pairs cannot show anything at 5 %.
"""

import math
from collections.abc import Sequence

import numpy as np

MOST_PAIRS = 20  # a million patterns


def permutation_p(differences: Sequence[float]) -> float:
    """Two-sided p of the mean: the share of sign patterns whose mean is at least as far from 0.

    Fisher 1935, The Design of Experiments, section 21. Raises ValueError for no pair, or more than MOST_PAIRS.
    """
    if not 1 <= len(differences) <= MOST_PAIRS:
        raise ValueError(f"There are {len(differences)} pairs; an exact test takes 1 to {MOST_PAIRS}.")
    sums = np.zeros(1)
    for size in np.abs(np.asarray(differences, dtype=np.float64)):
        sums = np.concatenate([sums + size, sums - size])
    observed = abs(math.fsum(differences))
    return float(np.mean(np.abs(sums) >= observed * (1 - 1e-12)))


def sign_p(differences: Sequence[float]) -> float:
    """Two-sided p of the signs alone, by the binomial distribution; pairs that are equal are left out."""
    up, down = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    pairs = up + down
    tail = sum(math.comb(pairs, count) for count in range(min(up, down) + 1))
    return min(1.0, 2 * tail / 2**pairs)
