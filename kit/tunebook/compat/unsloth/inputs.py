"""What a tokenizer gives and a model takes, with the few moves notebooks make of tensors: no torch, and no devices."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from ..told import tell

NO_DEVICES = "`.to('cuda')` does nothing: MLX computes where the model is. Leave it out."


class Ids(np.ndarray):
    """Token ids (B, T) int64, or (T,) of one row: a NumPy array, whose shape and slices are those of a tensor."""

    def to(self, *_: Any, **__: Any) -> Self:
        """The same ids, wherever they are asked to be."""
        tell(NO_DEVICES)
        return self

    def cuda(self) -> Self:
        """As `to`."""
        return self.to()

    def cpu(self) -> Self:
        """The same ids; they are there."""
        return self


class Inputs(dict[str, Any]):
    """What a tokenizer made of texts, by name and, as in `inputs.input_ids`, by attribute."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"These inputs have no {name}; they have {', '.join(self)}.")
        return self[name]

    def to(self, *_: Any, **__: Any) -> Self:
        """The same inputs."""
        tell(NO_DEVICES)
        return self


def ids_of(rows: Sequence[Sequence[int]]) -> Ids:
    """Rows of one length as (B, T)."""
    return np.array(rows, dtype=np.int64).reshape(len(rows), -1).view(Ids)


def padded(rows: Sequence[Sequence[int]], pad: int, *, side: str) -> tuple[Ids, Ids]:
    """((B, T) ids, (B, T) 1 where a row has one of its own), the rest `pad`, at the `side` "left" or "right"."""
    width = max(map(len, rows))
    fill = [[pad] * (width - len(row)) for row in rows]
    own = [([1] * len(row), [0] * len(rest)) for row, rest in zip(rows, fill, strict=True)]
    if side == "left":
        ids = [[*rest, *row] for row, rest in zip(rows, fill, strict=True)]
        return ids_of(ids), ids_of([[*rest, *row] for row, rest in own])
    return ids_of([[*row, *rest] for row, rest in zip(rows, fill, strict=True)]), ids_of([[*a, *b] for a, b in own])
