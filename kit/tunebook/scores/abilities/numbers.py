"""Sums, differences and products of small numbers, each with three wrong results near the right one."""

from random import Random

from .draws import one, some, whole_number, with_choices

SIGNS = ("+", "-", "x")


def arithmetic(chance: Random) -> dict:
    """One row, such as "What is 7 x 8?"."""
    sign = one(chance, SIGNS)
    if sign == "x":
        left, right = whole_number(chance, 2, 10), whole_number(chance, 2, 10)
        result, near = left * right, (left, -left, right, -right, 1, -1)
    else:
        left, right = whole_number(chance, 2, 30), whole_number(chance, 2, 20)
        left = left + right if sign == "-" else left
        result, near = (left + right if sign == "+" else left - right), (1, -1, 2, -2, 10, -10)
    wrong = sorted({result + off for off in near if result + off >= 0} - {result})
    return with_choices(
        chance, f"What is {left} {sign} {right}?", str(result), [str(number) for number in some(chance, wrong, 3)]
    )
