"""Rows -> rows to train on, and rows held out to measure with."""

import random
from array import array
from collections.abc import Sequence

from .identity import content_of
from .read import read_rows
from .rows import Indexed, Picked, Row, Rows, Source


def hold_out(rows: Source, count: int | float, seed: int = 3407) -> tuple[Sequence[Row], Sequence[Row]]:
    """Split rows, or anything `read_rows` opens, into (train, held out) at random, by the seed; both keep their order.

    `count` distinct rows are held out, and every copy of one of them is left out of the training rows as well: a
    held-out row that is also trained on measures memory, not learning. A float between 0 and 1 is that share of the
    distinct rows, rounded, and at least one of them. Raises ValueError when fewer than one distinct row would be left
    to train on.

    A list is split into lists; of anything else the two are views, which read a row when asked for it.

        >>> train_rows, held_out_rows = hold_out("train.jsonl", 0.25)
    """
    source = read_rows(rows, "rows")
    train, held_out = held_out_places(source, count, seed)
    return rows_at(source, train), rows_at(source, held_out)


def held_out_places(rows: Sequence[Row], count: int | float, seed: int = 3407) -> "tuple[array[int], array[int]]":
    """What `hold_out` decides: (places of the rows to train on, places of those held out), each in order."""
    kinds, first = _distinct(rows)
    wanted = _how_many(count, len(first))
    chosen = set(random.Random(seed).sample(range(len(first)), wanted))
    train = array("Q", (place for place, kind in enumerate(kinds) if kind not in chosen))
    return train, array("Q", (first[kind] for kind in sorted(chosen)))


def rows_at(rows: Sequence[Row], places: Sequence[int]) -> Sequence[Row]:
    """The rows at `places`: a list of a list, and of anything else a view."""
    if isinstance(rows, list):
        return [rows[place] for place in places]
    return Picked(rows if isinstance(rows, Rows) else Indexed(rows, "rows"), places)


def _distinct(rows: Sequence[Row]) -> "tuple[array[int], array[int]]":
    """(for each row the number of its kind, for each kind the place of its first row)."""
    numbers: dict[bytes, int] = {}
    kinds, first = array("Q"), array("Q")
    for place, row in enumerate(rows):
        kind = numbers.setdefault(content_of(row), len(numbers))
        kinds.append(kind)
        if kind == len(first):
            first.append(place)
    return kinds, first


def _how_many(count: int | float, distinct: int) -> int:
    """The number of distinct rows to hold out."""
    wanted = max(1, round(count * distinct)) if isinstance(count, float) and 0 < count < 1 else count
    if not isinstance(wanted, int) or not 1 <= wanted < distinct:
        raise ValueError(
            f"Cannot hold out {count} of {distinct} distinct rows; choose between 1 and {distinct - 1}, or a share "
            "between 0 and 1."
        )
    return wanted
