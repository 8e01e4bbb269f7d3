"""Losses after steps at rising rates, read."""

import math
from itertools import pairwise

import pytest

from tunebook.rate_finder.found import RateFound, has_run_away, ladder

RATES = ladder(1e-5, 1e-1, 17)


def found(loss, rates=RATES):
    """A trial whose loss after a step at each rate is `loss(log10 of the rate)`."""
    return RateFound(rates=tuple(rates), losses=(3.0, *(loss(math.log10(rate)) for rate in rates)), measured="8 rows")


def test_a_ladder_goes_up_by_one_factor_from_end_to_end():
    assert (RATES[0], RATES[-1]) == (1e-5, pytest.approx(1e-1))
    assert {round(upper / lower, 9) for lower, upper in pairwise(RATES)} == {round(10**0.25, 9)}


@pytest.mark.parametrize("wrong", [(1e-2, 1e-3, 5), (1e-3, 1e-3, 5), (1e-3, 1e-2, 1)])
def test_a_ladder_that_does_not_rise_is_refused(wrong):
    with pytest.raises(ValueError, match="from a lower rate to a higher one"):
        ladder(*wrong)


@pytest.mark.parametrize("steepest", [-3.5, -3.0, -2.5])
def test_the_rate_is_where_a_smooth_loss_falls_fastest(steepest):
    # A step of the logistic curve, whose derivative is largest in its middle, and a wall behind it.
    trial = found(lambda log: 3 - 2 / (1 + math.exp(-6 * (log - steepest))) + max(0.0, log + 1.5) * 20)
    assert math.log10(trial.rate) == pytest.approx(steepest, abs=0.26)  # a rung of the ladder
    assert f"learning_rate={trial.rate:.1e}" in trial.reason
    assert "Beyond that it rose." in trial.reason


def test_a_noisy_step_alone_decides_nothing():
    # The loss stands where it began, but for one step up and down again, and then falls.
    trial = found(lambda log: 3.0 + (0.2 if abs(log + 4.5) < 0.1 else 0) - max(0.0, min(log, -2) + 3.5))
    assert -3.6 < math.log10(trial.rate) <= -2


def test_what_lies_behind_the_lowest_loss_is_not_looked_at():
    trial = found(lambda log: 3 - 2 * max(0.0, log + 3) if log <= -2.4 else math.nan)
    assert trial.rate < 10**-2.4


@pytest.mark.parametrize("loss", [lambda _: 3.0, lambda log: 3.0 + log + 5.1, lambda _: math.nan])
def test_where_no_rate_lowered_the_loss_none_is_given_and_that_is_said(loss):
    trial = found(loss)
    assert trial.rate is None
    assert "At none of the rates from 1e-05 to 0.1 did the loss of 8 rows fall" in trial.reason


def test_a_loss_that_never_rose_is_said_to_have_been_looked_at_no_further():
    assert "higher rates than 1.0e-01 were not tried" in found(lambda log: -log).reason


@pytest.mark.parametrize(
    ("losses", "away"),
    [
        ([3.0, 2.0, 2.4], False),
        ([3.0, 2.0, 2.6], True),
        ([3.0, 3.4], False),
        ([9.0, 1.0, 4.9], False),
        ([3.0, math.nan], True),
    ],
)
def test_a_trial_ends_when_its_loss_is_far_above_the_lowest(losses, away):
    assert has_run_away(losses) is away


@pytest.mark.parametrize("dark", [False, True])
def test_the_picture_has_the_losses_over_their_rates_and_the_choice(dark):
    trial = found(lambda log: 3 - max(0.0, log + 3) if log <= -1.5 else math.inf)
    (axes,) = trial.picture(dark=dark).axes
    _, curve, choice = axes.lines
    finite = [rate for rate in RATES if math.log10(rate) <= -1.5]
    assert list(curve.get_xdata()) == finite
    assert list(curve.get_ydata()) == list(trial.losses[1 : len(finite) + 1])
    assert list(choice.get_xdata()) == [trial.rate]
    assert axes.get_xscale() == "log"
    assert trial._repr_png_().startswith(b"\x89PNG")
