"""Encoded rows in a folder: written one after another, read back as a sequence that the disk holds and not memory.

Tokens and masks of all rows lie end to end in two files, and one small index says where each row begins. What images
the rows refer to lies beside them (`stored_pictures.py`). The folder is written once and never changed.
"""

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, final, overload

import numpy as np

from .families.base import Encoded
from .stored_pictures import PictureWriter, StoredPictures

TOKENS, MASKS, INDEX, FACTS = "tokens.int32", "masks.bool", "index.npz", "facts.json"


def write_rows(folder: Path, rows: Iterable[Encoded], facts: Callable[[], dict[str, Any]]) -> None:
    """Write `rows` into an empty folder as they come; `facts`, plain values, are asked for when all are written.

    Raises InMemory for an image that is no file.
    """
    starts, numbers, cuts = array("q", [0]), array("q"), array("q")
    with (
        (folder / TOKENS).open("wb") as tokens,
        (folder / MASKS).open("wb") as masks,
        PictureWriter(folder) as pictures,
    ):
        for row in rows:
            pictures.write(row)
            tokens.write(row.tokens.astype("<i4").tobytes())
            masks.write(row.loss_mask.tobytes())
            starts.append(starts[-1] + len(row.tokens))
            numbers.append(row.number)
            cuts.append(row.cut)
    index: dict[str, Any] = {"starts": np.array(starts), "numbers": np.array(numbers), "cuts": np.array(cuts)}
    np.savez(folder / INDEX, **index, **pictures.index)
    (folder / FACTS).write_text(json.dumps(facts()))


def read_rows(folder: Path, *, images: str | Path | None = None) -> tuple["EncodedRows", dict[str, Any]]:
    """(rows, facts) of a folder; `images` is the folder that the paths of images are relative to.

    Raises ValueError when a file is not as long as the index says.
    """
    facts = json.loads((folder / FACTS).read_text())
    with np.load(folder / INDEX) as file:
        index = dict(file)
    starts, numbers, cuts = index.pop("starts"), index.pop("numbers"), index.pop("cuts")
    for name, size in ((TOKENS, 4), (MASKS, 1)):
        if (folder / name).stat().st_size != starts[-1] * size:
            raise ValueError(f"{folder / name} does not hold the {starts[-1]} tokens its index speaks of.")
    tokens = np.memmap(folder / TOKENS, dtype="<i4", mode="r", shape=(starts[-1],))
    masks = np.memmap(folder / MASKS, dtype=np.bool_, mode="r", shape=(starts[-1],))
    pictures = StoredPictures(folder, index, images) if index else None
    return EncodedRows(tokens, masks, starts, numbers, cuts, pictures), facts


@final
class EncodedRows(Sequence[Encoded]):
    """Rows whose tokens are read when asked for."""

    def __init__(
        self,
        tokens: np.ndarray,
        masks: np.ndarray,
        starts: np.ndarray,
        numbers: np.ndarray,
        cuts: np.ndarray,
        pictures: StoredPictures | None,
    ):
        self._tokens, self._masks = tokens, masks  # (all tokens,) int32 and bool
        self._starts, self._numbers, self._cuts = starts, numbers, cuts  # (rows + 1,), (rows,), (rows,)
        self._pictures = pictures  # None: no row has an image

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
            images=self._pictures.of(index) if self._pictures else (),
            images_end=self._pictures.end(index) if self._pictures else 0,
        )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return np.diff(self._starts).tolist()


def lengths_of(rows: Sequence[Encoded]) -> list[int]:
    """Tokens of each row; without reading them where it can be told."""
    return rows.lengths if isinstance(rows, EncodedRows) else [len(row.tokens) for row in rows]
