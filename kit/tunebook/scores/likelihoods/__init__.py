"""How likely a model finds texts: of each row the nats of its supervised tokens, a few rows at a time.

Of single tokens it is asked in `token_losses.py`. Only states that predict a supervised token go through the head, a
piece at a time, so that logits are never whole. Tokens that several rows begin with are read once (`shared.py`), where
the family has nothing against it. Nothing makes a gradient.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import mlx.nn as nn
import numpy as np

from ...data.encoded import Batch, Encoded
from ...fast.forms import Forms, forms_for
from ...fast.training_form import inference_form
from ...models.families.base import Family
from ...models.families.beginnings import Before
from .shared import Beginning, beginnings
from .token_losses import predicted

ROWS_BEHIND = 8  # times `batch_size` rows at a time behind beginnings that were read, where they are short


@dataclass(frozen=True)
class Sum:
    """Over the supervised tokens of one row."""

    nats: float  # the logarithm of their probability together, 0 at most
    tokens: int
    is_greedy: bool  # whether each is the likeliest in its place


def summed_likelihoods(
    family: Family, module: nn.Module, rows: Sequence[Encoded], *, batch_size: int
) -> Iterator[tuple[int, Sum]]:
    """(place in `rows`, its sum), the longest first; each row has a token to predict. Raises as `Family.collate`."""
    shared, whole = beginnings(rows)
    if shared and family.why_apart(module) is not None:
        shared, whole = [], [*range(len(rows))]
    asking = _Asking(family, module, rows, batch_size)
    yield from asking.behind(shared, Before(len(shared)))
    yield from asking.alone(whole)


def why_apart(family: Family, module: nn.Module, rows: Sequence[Encoded]) -> str | None:
    """Why what `rows` begin with is read again with each of them; None where it is not, or nothing is worth it."""
    return family.why_apart(module) if beginnings(rows)[0] else None


def read_whole(reason: str) -> str:
    """The sentence on rows for which there was such a `reason`."""
    return f"What several rows begin with was read again with each of them: {reason}."


@final
class _Asking:
    """Rows that are put to a model."""

    def __init__(self, family: Family, module: nn.Module, rows: Sequence[Encoded], batch_size: int):
        self._family, self._module, self._rows, self._size = family, module, rows, batch_size
        self._forms, self._form = forms_for(), inference_form(module)
        self._most = batch_size * max((len(row.tokens) for row in rows), default=0)  # tokens at a time

    def alone(self, places: Sequence[int]) -> Iterator[tuple[int, Sum]]:
        """Of rows that are read whole."""
        order = sorted(places, key=lambda place: -len(self._rows[place].tokens))
        for start in range(0, len(order), self._size):
            some = order[start : start + self._size]
            yield from zip(some, self._sums([self._rows[place] for place in some]), strict=True)

    def behind(self, some: Sequence[Beginning], before: Before) -> Iterator[tuple[int, Sum]]:
        """Of all rows that begin so; `before` has what stands before each of these beginnings."""
        order = sorted(range(len(some)), key=lambda place: -len(some[place]))
        for start in range(0, len(order), self._size):
            places = order[start : start + self._size]
            begun = [some[place] for place in places]
            texts = [self._rows[one.row].tokens[one.start : one.end] for one in begun]
            read = before.of(places)
            with self._form:
                read = read.then(self._family.read(self._module, texts, read))
            yield from self._rows_behind([(row, at, one.end) for at, one in enumerate(begun) for row in one.rows], read)
            inner = [(deeper, at) for at, one in enumerate(begun) for deeper in one.inner]
            yield from self.behind([deeper for deeper, _ in inner], read.of([at for _, at in inner]))

    def _rows_behind(self, rows: Sequence[tuple[int, int, int]], read: Before) -> Iterator[tuple[int, Sum]]:
        """Of `rows`, each (its place, the place of what stands before it, how many of its tokens that are)."""
        order = sorted(rows, key=lambda row: row[2] - len(self._rows[row[0]].tokens))
        while order:
            place, _, end = order[0]
            count = max(1, min(self._most // (len(self._rows[place].tokens) - end), ROWS_BEHIND * self._size))
            some, order = order[:count], order[count:]
            sums = self._sums([_from(self._rows[row], end) for row, _, end in some], read.of([at for _, at, _ in some]))
            yield from zip([row for row, *_ in some], sums, strict=True)

    def _sums(self, rows: Sequence[Encoded], before: Before | None = None) -> list[Sum]:
        batch = self._family.collate(rows, max(len(row.tokens) for row in rows))
        if before is not None:
            batch["before"] = before
        with self._form:
            return _sums(self._family, self._module, batch, self._forms)


def _from(row: Encoded, start: int) -> Encoded:
    return replace(row, tokens=row.tokens[start:], loss_mask=row.loss_mask[start:])


def _sums(family: Family, module: nn.Module, batch: Batch, forms: Forms) -> list[Sum]:
    found, rows = predicted(family, module, batch, forms), len(batch["tokens"])
    totals = np.bincount(found.row, found.losses, rows)
    counts = np.bincount(found.row, minlength=rows)
    missed = np.bincount(found.row, ~found.hits, rows)
    return [Sum(-float(totals[row]), int(counts[row]), not missed[row]) for row in range(rows)]
