"""Losses after steps at rising rates, read: the rate to train with, or why none can be told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..machine.pictures import Picture

AWAY = 0.5  # nats above the lowest loss, or this share of how far it fell: beyond, higher rates say nothing
LEAST_FALL = 0.01  # nats that a loss has to fall for a rate to be read from it
NEIGHBOURS = 1  # on either side of a step that its fall is averaged with


def ladder(lowest: float, highest: float, steps: int) -> list[float]:
    """`steps` rates from `lowest` to `highest`, each the same factor above the one before.

    >>> [round(rate, 6) for rate in ladder(1e-4, 1e-2, 3)]
    [0.0001, 0.001, 0.01]
    """
    if not lowest < highest or steps < 2:
        raise ValueError(
            f"A trial goes from a lower rate to a higher one in 2 steps or more; lowest is {lowest:g}, highest "
            f"{highest:g}, steps {steps}."
        )
    return [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]


def has_run_away(losses: Sequence[float]) -> bool:
    """Whether the last loss is none, or so much above the lowest that the weights are spoilt."""
    if not math.isfinite(losses[-1]):
        return True
    return losses[-1] > min(losses) + max(AWAY, AWAY * (losses[0] - min(losses)))


@dataclass(frozen=True, kw_only=True)
class RateFound:
    """What a trial came to. `rate` is the one to train with, `reason` says why; a notebook shows the picture.

    >>> found = RateFound(rates=(1e-5, 1e-4, 1e-3, 1e-2), losses=(3.0, 2.99, 2.9, 2.2, 5.0), measured="8 rows")
    >>> found.rate
    0.001
    """

    rates: tuple[float, ...]  # in the order they were tried
    losses: tuple[float, ...]  # before the first step and after each; as many and one more
    measured: str  # whose loss it is: "8 held-out rows"

    @cached_property
    def lowest(self) -> int:
        """After which of the rates the loss was lowest."""
        after = [loss if math.isfinite(loss) else math.inf for loss in self.losses[1:]]
        return min(range(len(after)), key=after.__getitem__)

    @property
    def rate(self) -> float | None:
        """Where the loss fell fastest, which is below where it was lowest; None where it did not fall."""
        fell = self.losses[0] - self.losses[self.lowest + 1]
        if not fell >= LEAST_FALL:  # NaN neither
            return None
        falls = self._falls()
        return self.rates[max(range(len(falls)), key=falls.__getitem__)]

    @property
    def reason(self) -> str:
        """Why that rate, in a sentence or two."""
        tried = f"{self.rates[0]:.2g} to {self.rates[-1]:.2g}"
        if self.rate is None:
            return (
                f"At none of the rates from {tried} did the loss of {self.measured} fall by {LEAST_FALL} nats; it "
                f"began at {self.losses[0]:.3f}. Take more steps, or look at the rows."
            )
        bottom = self.rates[self.lowest]
        said = (
            f"learning_rate={self.rate:.1e}: there the loss of {self.measured} fell fastest; it was lowest at "
            f"{bottom:.1e} ({self.losses[0]:.3f} before, {self.losses[self.lowest + 1]:.3f} then)."
        )
        if self.lowest == len(self.rates) - 1:
            return f"{said} It never rose: higher rates than {self.rates[-1]:.1e} were not tried."
        return f"{said} Beyond that it rose."

    def picture(self, *, dark: bool = False) -> "Picture":
        """The loss after each step over its rate, and the rate that was chosen."""
        from .picture import picture  # brings matplotlib, half a second

        return picture(self.rates, self.losses, self.rate, self.measured, dark=dark)

    def _falls(self) -> list[float]:
        """Nats by which the loss fell in each step down to the lowest, averaged with its neighbours among them."""
        down = self.losses[: self.lowest + 2]
        own = [before - after for before, after in pairwise(down)]
        near = [own[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1] for place in range(len(own))]
        return [sum(falls) / len(falls) for falls in near]

    def __repr__(self):
        return self.reason

    def _repr_png_(self) -> bytes:
        return self.picture()._repr_png_()
