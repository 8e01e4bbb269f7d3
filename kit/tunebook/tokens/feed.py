"""The rows of a run, one optimizer step after another: out of a set that is known as a whole, or out of a stream.

Both give the same rows for the same step again, which is what lets a run be resumed. Of a set the rows of a step follow
from its number; of a stream they follow from the place the step before ended at, which a checkpoint therefore holds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Protocol, final

import numpy as np

from ..config import TrainingConfig
from ..data.encoded import Encoded
from ..data.sources import Row, RowStream
from .batch_order import windows
from .stored_rows import lengths_of
from .tally import MOST_NAMED, Account

BLOCK = 512  # rows of a stream that are held in memory, and shuffled among themselves


@dataclass(frozen=True)
class Place:
    """How far the rows of a run are read; all but the step is about a stream, where the step tells too little."""

    step: int = 0  # optimizer steps that are done
    epoch: int = 0
    row: int = 0  # rows of the epoch that are done, in the order they are trained in
    piece: int = 0  # and pieces of the next one, where it is a text longer than a training row


@dataclass(frozen=True)
class Portion:
    """What one optimizer step is made of."""

    batches: Sequence[Sequence[Encoded]]  # its micro-batches
    place: Place  # behind it
    notices: Sequence[str] = ()  # what became of rows on the way here


class Feed(Protocol):
    """Where a run gets its rows."""

    known: Sequence[Encoded]  # the rows that can be looked at before the run: all, or the first of a stream
    is_whole: bool  # whether those are all

    def portions(self, place: Place) -> Iterator[Portion]:
        """The portions from `place` on, without end."""
        ...


@final
class StoredFeed:
    """A set of rows, in the order `TrainingConfig.dataset_order` says."""

    is_whole = True

    def __init__(self, rows: Sequence[Encoded], config: TrainingConfig):
        self.known, self._config = rows, config

    def portions(self, place: Place) -> Iterator[Portion]:
        """One for each step behind `place.step`, epoch after epoch without end; only a step's rows are read."""
        to_come = islice(windows(lengths_of(self.known), self._config), place.step, None)
        for step, window in enumerate(to_come, start=place.step + 1):
            yield Portion([[self.known[number] for number in numbers] for numbers in window], Place(step))


@final
class StreamFeed:
    """A stream of rows, encoded when their step comes.

    Rows are shuffled within blocks of BLOCK neighbours, anew in every epoch, or stay in order with
    `dataset_order="sequential"`. As elsewhere no batch spans two epochs and the last of an epoch may be smaller.
    """

    is_whole = False

    def __init__(
        self,
        rows: RowStream,
        known: Sequence[Encoded],
        encode: Callable[[int, Row], Sequence[Encoded]],
        account: Account,
        config: TrainingConfig,
        *,
        skip: int = 0,
    ):
        """The first `skip` rows are not used.

        `encode(number, row)` gives a row's encoded pieces, and none when it is left out, which `account` counts.
        """
        self.known, self._rows, self._encode = known, rows, encode
        self._account, self._config, self._skip = account, config, skip
        self._said: set[str] = set()

    def portions(self, place: Place) -> Iterator[Portion]:
        """Raises ValueError for a row that cannot be trained on, and for a stream that cannot be read again."""
        size, step = self._config.per_device_train_batch_size, place.step
        while True:
            epoch, began = self._epoch(place), place
            while some := list(islice(epoch, size * self._config.gradient_accumulation_steps)):
                rows, places = zip(*some, strict=True)
                step, place = step + 1, places[-1]
                batches = [rows[start : start + size] for start in range(0, len(rows), size)]
                yield Portion(batches, replace(place, step=step), self._news())
            if place is began and not place.row:
                raise ValueError(f"{self._rows.origin} gave no row that can be trained on in epoch {place.epoch + 1}.")
            place = Place(step, place.epoch + 1)

    def _epoch(self, place: Place) -> Iterator[tuple[Encoded, Place]]:
        """What is left of an epoch at `place`: (row or piece, the place behind it)."""
        first = place.row // BLOCK
        rows = self._rows.start_at(self._skip + first * BLOCK)
        for block in count(first):
            some = list(islice(rows, BLOCK))
            if not some:
                return
            for index, chosen in enumerate(self._order(place.epoch, block, len(some))):
                done = block * BLOCK + index
                if done < place.row:
                    continue
                pieces = self._encode(self._skip + block * BLOCK + chosen, some[chosen])
                for piece in range(place.piece if done == place.row else 0, len(pieces)):
                    is_last = piece + 1 == len(pieces)
                    behind = {"row": done + 1} if is_last else {"row": done, "piece": piece + 1}
                    yield pieces[piece], Place(epoch=place.epoch, **behind)

    def _order(self, epoch: int, block: int, rows: int) -> Sequence[int]:
        if self._config.dataset_order == "sequential":
            return range(rows)
        return np.random.default_rng([self._config.seed, epoch, block]).permutation(rows).tolist()

    def _news(self) -> list[str]:
        """Each kind of thing that became of rows, when it is met first; the counts are those so far.

        What is not read is said again when more of it is met, as long as there is room to name it.
        """
        told = self._account.by_kind()
        if "not read" in told:
            named = min(len(self._account.unread), MOST_NAMED + 1)
            told[f"not read, {named}"] = told.pop("not read")
        met = {kind: text for kind, text in told.items() if kind not in self._said}
        self._said |= met.keys()
        return [f"So far in the stream: {text}" for text in met.values()]
