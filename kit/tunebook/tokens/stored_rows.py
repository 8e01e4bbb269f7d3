"""Encoded rows in a folder: written one after another, read back as a sequence that the disk holds and not memory.

Tokens and masks of all rows lie end to end in two files, and one small index says where each row begins and what its
checksum is. What images the rows refer to lies beside them (`stored_images.py`). The folder is sealed and never
changed: each file is digested when it is opened (1 to 2 GB a second), each row held against its checksum when it is
read.
"""

import io
import json
import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final, overload

import numpy as np

from ..data.encoded import Encoded
from ..data.images import recall
from ..data.reach import ANYWHERE, Reach
from ..machine.sealed import Damaged, OpenFile, SealedFolder, seal
from .stored_images import ImageWriter, Recalled, StoredImages

TOKENS, MASKS, INDEX, FACTS = "tokens.int32", "masks.bool", "index.npz", "facts.json"
UNJUDGED = -1  # the label of a row that has none


def write_rows(folder: Path, rows: Iterable[Encoded], facts: Callable[[], dict[str, Any]]) -> None:
    """Write `rows` into an empty folder as they come; `facts`, plain values, are asked for when all are written.

    Raises InMemory for an image that is no file.
    """
    starts, sums = array("q", [0]), array("L")
    numbers, cuts, seconds, labels = (array("q") for _ in range(4))
    with (
        (folder / TOKENS).open("wb") as tokens,
        (folder / MASKS).open("wb") as masks,
        ImageWriter(folder) as images,
    ):
        for row in rows:
            images.write(row)
            ids, mask = row.tokens.astype("<i4").tobytes(), row.loss_mask.tobytes()
            tokens.write(ids)
            masks.write(mask)
            sums.append(_checksum(ids, mask))
            starts.append(starts[-1] + len(row.tokens))
            numbers.append(row.number)
            cuts.append(row.cut)
            seconds.append(row.second)
            labels.append(UNJUDGED if row.label is None else row.label)
    index = {
        "starts": starts,
        "numbers": numbers,
        "cuts": cuts,
        "seconds": seconds,
        "labels": labels,
        "checksums": sums,
    }
    np.savez(folder / INDEX, **{name: np.array(values) for name, values in index.items()}, **images.index)
    (folder / FACTS).write_text(json.dumps(facts()))
    seal(folder)


def read_rows(
    folder: Path, *, reach: Reach = ANYWHERE, recalled: Recalled | None = None
) -> tuple["EncodedRows", dict[str, Any]]:
    """(rows, facts) of a folder; `reach` is what their images were referred to with.

    `recalled` finds an image by its reference and digest where that is not at the place it was referred to. Raises
    Damaged when a file is not the one that was written.
    """
    sealed = SealedFolder(folder)
    facts = json.loads(sealed.read(FACTS))
    with np.load(io.BytesIO(sealed.read(INDEX))) as file:
        index = dict(file)
    columns = Columns(*(index.pop(name) for name in ("starts", "numbers", "cuts", "seconds", "labels", "checksums")))
    images = StoredImages(sealed, index, recalled or partial(recall, reach=reach)) if index else None
    return EncodedRows(sealed.open(TOKENS), sealed.open(MASKS), columns, images), facts


class Columns(NamedTuple):
    """What the index says of each row; (rows,) each, but `starts`."""

    starts: np.ndarray  # (rows + 1,) where in the tokens it begins
    numbers: np.ndarray
    cuts: np.ndarray
    seconds: np.ndarray
    labels: np.ndarray  # 0, 1 or UNJUDGED
    sums: np.ndarray  # checksums of its tokens and mask


@final
class EncodedRows(Sequence[Encoded]):
    """Rows whose tokens are read when asked for."""

    def __init__(
        self,
        tokens: OpenFile,
        masks: OpenFile,
        columns: Columns,
        images: StoredImages | None,
    ):
        self._tokens, self._masks = tokens, masks  # (all tokens,) int32 and bool
        self._columns = columns
        self._images = images  # None: no row has an image

    def __len__(self):
        return len(self._columns.numbers)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        index = range(len(self))[index]  # IndexError outside, as Sequence.__iter__ needs it
        columns = self._columns
        start, stop = columns.starts[index : index + 2].tolist()
        ids, mask = self._tokens.read(4 * start, 4 * stop), self._masks.read(start, stop)
        if _checksum(ids, mask) != columns.sums[index]:
            raise Damaged(
                f"Row {columns.numbers[index]} changed on the disk, in the cache folder, since the Trainer was made; "
                "make the Trainer again, and its rows are read anew."
            )
        return Encoded(
            tokens=np.frombuffer(ids, dtype="<i4"),
            loss_mask=np.frombuffer(mask, dtype=np.bool_),
            cut=int(columns.cuts[index]),
            number=int(columns.numbers[index]),
            images=self._images.of(index) if self._images else (),
            images_end=self._images.end(index) if self._images else 0,
            second=int(columns.seconds[index]),
            label=None if columns.labels[index] == UNJUDGED else bool(columns.labels[index]),
        )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row's longest sequence."""
        seconds = self._columns.seconds
        return np.maximum(seconds, np.diff(self._columns.starts) - seconds).tolist()


def lengths_of(rows: Sequence[Encoded]) -> list[int]:
    """Tokens of each row's longest sequence; without reading them where it can be told."""
    return rows.lengths if isinstance(rows, EncodedRows) else [row.longest for row in rows]


def _checksum(ids: bytes, mask: bytes) -> int:
    return zlib.crc32(mask, zlib.crc32(ids))
