"""Encoded rows in a folder: written one after another, read back as a sequence that the disk holds and not memory.

Tokens and masks of all rows lie end to end in two files, and one small index says where each row begins. The folder is
written once and never changed.
"""

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, final, overload

import numpy as np

from .families.base import Encoded

TOKENS, MASKS, INDEX, FACTS = "tokens.int32", "masks.bool", "index.npz", "facts.json"


def write_rows(folder: Path, rows: Iterable[Encoded], facts: Callable[[], dict[str, Any]]) -> None:
    """Write `rows` into an empty folder as they come; `facts`, plain values, are asked for when all are written."""
    starts, numbers, cuts = array("q", [0]), array("q"), array("q")
    with (folder / TOKENS).open("wb") as tokens, (folder / MASKS).open("wb") as masks:
        for row in rows:
            tokens.write(row.tokens.astype("<i4").tobytes())
            masks.write(row.loss_mask.tobytes())
            starts.append(starts[-1] + len(row.tokens))
            numbers.append(row.number)
            cuts.append(row.cut)
    np.savez(folder / INDEX, starts=np.array(starts), numbers=np.array(numbers), cuts=np.array(cuts))
    (folder / FACTS).write_text(json.dumps(facts()))


def read_rows(folder: Path) -> tuple["EncodedRows", dict[str, Any]]:
    """(rows, facts) of a folder. Raises ValueError when a file is not as long as the index says."""
    facts = json.loads((folder / FACTS).read_text())
    with np.load(folder / INDEX) as index:
        starts, numbers, cuts = index["starts"], index["numbers"], index["cuts"]
    for name, size in ((TOKENS, 4), (MASKS, 1)):
        if (folder / name).stat().st_size != starts[-1] * size:
            raise ValueError(f"{folder / name} does not hold the {starts[-1]} tokens its index speaks of.")
    tokens = np.memmap(folder / TOKENS, dtype="<i4", mode="r", shape=(starts[-1],))
    masks = np.memmap(folder / MASKS, dtype=np.bool_, mode="r", shape=(starts[-1],))
    return EncodedRows(tokens, masks, starts, numbers, cuts), facts


@final
class EncodedRows(Sequence[Encoded]):
    """Rows whose tokens are read when asked for."""

    def __init__(
        self, tokens: np.ndarray, masks: np.ndarray, starts: np.ndarray, numbers: np.ndarray, cuts: np.ndarray
    ):
        self._tokens, self._masks = tokens, masks  # (all tokens,) int32 and bool
        self._starts, self._numbers, self._cuts = starts, numbers, cuts  # (rows + 1,), (rows,), (rows,)

    def __len__(self):
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        index = range(len(self))[index]  # IndexError outside, as Sequence.__iter__ needs it
        place = slice(self._starts[index], self._starts[index + 1])
        return Encoded(
            tokens=np.asarray(self._tokens[place]),
            loss_mask=np.asarray(self._masks[place]),
            cut=int(self._cuts[index]),
            number=int(self._numbers[index]),
        )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return np.diff(self._starts).tolist()


def lengths_of(rows: Sequence[Encoded]) -> list[int]:
    """Tokens of each row; without reading them where it can be told."""
    return rows.lengths if isinstance(rows, EncodedRows) else [len(row.tokens) for row in rows]
