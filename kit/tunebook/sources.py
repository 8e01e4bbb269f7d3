"""Where rows come from: anything that yields dicts becomes a list of them, and some of them are held out.

A row is a plain dict, one per training example; what its columns mean is `formats/`'s business.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def read_rows(source: Iterable[Row], name: str = "train_dataset") -> list[Row]:
    """The rows of a list, a `datasets.Dataset` or any iterable of dicts.

    Raises TypeError for a row that is no mapping and ValueError when there are none; both say which.
    """
    if isinstance(source, str | bytes | Mapping):
        raise TypeError(
            f"{name} is a {type(source).__name__}; pass a list of rows, each a dict such as {{'messages': ...}}."
        )
    rows = list(source)
    if not rows:
        raise ValueError(f"{name} is empty; there is nothing to train on or to measure.")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"Row {index} of {name} is a {type(row).__name__}; each row must be a dict.")
    return rows


def hold_out(rows: Sequence[Row], count: int, seed: int = 3407) -> tuple[list[Row], list[Row]]:
    """Split rows into (train, held out) at random, by the seed; both keep the order they came in.

    `count` distinct rows are held out, and every copy of one of them is left out of the training rows as well: a
    held-out row that is also trained on measures memory, not learning. Raises ValueError when fewer than one distinct
    row would be left to train on.
    """
    keys = [json.dumps(row, sort_keys=True, default=str) for row in rows]
    distinct = list(dict.fromkeys(keys))
    if not 1 <= count < len(distinct):
        raise ValueError(
            f"Cannot hold out {count} of {len(distinct)} distinct rows; choose between 1 and {len(distinct) - 1}."
        )
    chosen = set(random.Random(seed).sample(distinct, count))
    held_out = {key: row for key, row in zip(keys, rows, strict=True) if key in chosen}
    return [row for key, row in zip(keys, rows, strict=True) if key not in chosen], list(held_out.values())
