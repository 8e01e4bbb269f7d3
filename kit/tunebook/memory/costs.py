"""What layers and the loss take of memory, as polynomials of the tokens, and how one is fitted to measured bytes.

A few lengths with their bytes go in; from what comes out the bytes of any batch follow. No model is known here: it is
`probes.py` that measures one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """Bytes for B rows of T tokens: `constant + B * (linear * T + square * T**2)`."""

    constant: float
    linear: float
    square: float

    def __call__(self, rows: int, tokens: int) -> int:
        return max(0, round(self.constant + rows * (self.linear * tokens + self.square * tokens**2)))


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What the layers of one kind take."""

    count: int  # how many of this kind a gradient passes through
    kept: Polynomial  # by each of them, from its forward to its backward pass
    working: Polynomial  # by the one whose turn it is, while it is


@dataclass(frozen=True, kw_only=True)
class ImageCost:
    """What the images of B rows take that have as many as any."""

    kept: int  # bytes for each row, from its forward to its backward pass
    linear: float  # bytes in passing: B * linear + B**2 * square, while they are read and nothing else is at work
    square: float

    def passing(self, rows: int) -> int:
        """Bytes while they are read."""
        return round(rows * self.linear + rows**2 * self.square)


NO_IMAGES = ImageCost(kept=0, linear=0.0, square=0.0)


@dataclass(frozen=True, kw_only=True)
class LossCost:
    """What the loss takes, and what is trained outside of the layers."""

    constant: float  # bytes, the gradients of parameters outside of the layers among them
    position: float  # bytes for each supervised position that is in the head with others


def fit_polynomial(lengths: Sequence[int], values: Sequence[float]) -> Polynomial:
    """The parabola through three points; where that would bend or fall the wrong way, the line nearest to them."""
    square, linear, constant = np.polyfit(lengths, values, 2)
    if square < 0 or linear < 0:
        square, (linear, constant) = 0.0, np.polyfit(lengths, values, 1)
    return Polynomial(constant=float(constant), linear=float(max(0.0, linear)), square=float(square))
