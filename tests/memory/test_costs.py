"""memory/costs.py: bytes from polynomials, and polynomials from bytes, against ones that are known."""

import pytest

from tunebook.memory.costs import Polynomial, fit_polynomial


def test_what_is_fitted_to_three_points_of_a_parabola_is_that_parabola():
    known = Polynomial(constant=5e6, linear=3000.0, square=7.0)
    found = fit_polynomial([64, 128, 256], [known(1, length) for length in (64, 128, 256)])
    assert [found(3, length) for length in (1, 200, 4096)] == pytest.approx(
        [5e6 + 3 * (3000 * length + 7 * length**2) for length in (1, 200, 4096)]
    )


@pytest.mark.parametrize("values", [[100, 300, 400], [700, 300, 100], [10, 5, 50]], ids=["flattens", "falls", "dips"])
def test_more_tokens_never_take_fewer_bytes_however_the_points_lie(values):
    found = fit_polynomial([64, 128, 256], values)
    assert found.square >= 0
    assert found.linear >= 0


def test_points_that_flatten_give_the_line_nearest_to_them():
    found = fit_polynomial([1, 2, 3], [0.0, 3.0, 3.0])  # least squares by hand: a slope of 3 / 2 through (2, 2)
    assert (found.constant, found.linear, found.square) == pytest.approx((-1.0, 1.5, 0.0))


def test_rows_share_the_constant_and_bytes_are_never_negative():
    assert Polynomial(constant=10.0, linear=2.0, square=1.0)(3, 4) == 10 + 3 * (2 * 4 + 4**2)
    assert Polynomial(constant=-10.0, linear=2.0, square=0.0)(1, 4) == 0
