"""What a process counted over its micro-batches of a step, and what all of them come to."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from ...objectives.base import Sums, added


@dataclass(kw_only=True)
class Counted:
    """Sums over micro-batches; nothing is divided yet."""

    loss: float = 0.0  # what is differentiated
    units: int = 0  # what it is divided by
    tokens: int = 0  # supervised
    total_tokens: int = 0  # padding included
    trainable_tokens: int = 0  # with a label
    sums: Sums = field(default_factory=dict)  # of the metrics

    def add(self, other: "Counted") -> None:
        """Count what another counted too."""
        self.loss += other.loss
        self.units += other.units
        self.tokens += other.tokens
        self.total_tokens += other.total_tokens
        self.trainable_tokens += other.trainable_tokens
        self.sums = added(self.sums, other.sums)

    def as_plain(self) -> list[Any]:
        """Values that JSON keeps as they are."""
        sums = {name: value.tolist() for name, value in self.sums.items()}
        return [self.loss, self.units, self.tokens, self.total_tokens, self.trainable_tokens, sums]


def from_plain(plain: list[Any]) -> Counted:
    """What `as_plain` gave."""
    loss, units, tokens, total_tokens, trainable_tokens, sums = plain
    return Counted(
        loss=loss,
        units=units,
        tokens=tokens,
        total_tokens=total_tokens,
        trainable_tokens=trainable_tokens,
        sums={name: mx.array(value, mx.float32) for name, value in sums.items()},
    )


def together(said: Iterable[list[Any]]) -> Counted:
    """What all processes counted, added up in the order of `said`."""
    whole = Counted()
    for plain in said:
        whole.add(from_plain(plain))
    return whole
