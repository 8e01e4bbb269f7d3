"""Which rows of an exam are among the rows a model is trained on: questions and training rows in, pairs of them out.

Rows are compared as the model reads them, by token ids. The same: a training row begins with the question of the
exam's, to the last token. Nearly the same: it holds most of the exam row's runs of SHINGLE tokens (the containment of
Broder 1997, "On the resemblance and containment of documents"). Runs that many rows of the exam share, such as a
system prompt, say nothing and do not count.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.encoded import Encoded
from ..models.families.base import Family, NotEncodable
from .question import Question

SHINGLE = 5  # tokens
LEAST_SHINGLES = 8  # of an exam row that are its own; one with fewer is only compared as a whole
NEARLY = 0.8  # of them, in one training row
SHARED_BY = 0.1  # of the exam's rows: what more of them hold is a template's
MOST_NAMED = 3
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers stay apart modulo 2**64


@dataclass(frozen=True)
class Shared:
    """A row of the exam and the first training row that it is like."""

    exam_row: int
    training_row: int
    share: float  # of the exam row's shingles; 1.0: its question is the training row's


@dataclass(frozen=True)
class _Asked:
    number: int
    start: np.ndarray  # (T,) int32, what a training row that is the same begins with
    tokens: np.ndarray  # (T,) int32, with its answer where it has one
    images: tuple[bytes, ...]


def shared_rows(questions: Sequence[Question], family: Family, rows: Sequence[Encoded]) -> list[Shared]:
    """One for each question that is among `rows`, or nearly."""
    asked = [one for question in questions if (one := _asked(question, family)) is not None]
    same, near = _Starts(asked), _Shingles(asked)
    found: dict[int, Shared] = {}
    for row in rows:
        for tokens in _documents(row):
            for one in same.of(tokens, row):
                if one.number not in found or found[one.number].share < 1:
                    found[one.number] = Shared(one.number, row.number, 1.0)
            for one, share in near.of(tokens):
                found.setdefault(one.number, Shared(one.number, row.number, share))
    return [found[number] for number in sorted(found)]


def told_of(shared: Sequence[Shared], rows: int) -> list[str]:
    """A sentence on them; none where there are none."""
    if not shared:
        return []
    same = [one for one in shared if one.share == 1]
    near = [one for one in shared if one.share < 1]
    parts = [f"{len(same)} are training rows{_named(same)}"] if same else []
    parts += [f"{len(near)} nearly are{_named(near)}"] if near else []
    return [
        f"Of {rows} rows of the exam {' and '.join(parts)}. Their scores say what is learnt by heart; take them out of "
        "the training rows or the exam."
    ]


def _named(shared: Sequence[Shared]) -> str:
    pairs = ", ".join(f"row {one.exam_row} is like row {one.training_row}" for one in shared[:MOST_NAMED])
    return f" (the first: {pairs})" if len(shared) > MOST_NAMED else f" ({pairs})"


def _asked(question: Question, family: Family) -> _Asked | None:
    """None for a question that cannot be put into tokens: asking it will say why."""
    try:
        (whole,) = family.encode([question.whole or question.asked])
        (asked,) = family.encode([question.asked]) if question.asked.parts else (whole,)
    except NotEncodable:
        return None
    start = asked.tokens
    if len(start) and not np.array_equal(start, whole.tokens[: len(start)]):
        start = start[:-1]  # a text by itself is ended, with its answer behind it is not
    images = tuple(image.digest for image in whole.images)
    return _Asked(question.number, start, whole.tokens, images) if len(start) else None


def _documents(row: Encoded) -> Iterator[np.ndarray]:
    """The token ids of each sequence a row is made of."""
    for sequence in row.sequences:
        ends = [] if sequence.segments is None else np.flatnonzero(np.diff(sequence.segments)) + 1
        yield from np.split(sequence.tokens, ends)


class _Starts:
    """What training rows may begin with, by length and hash."""

    def __init__(self, asked: Sequence[_Asked]):
        self._known: dict[tuple[int, int], list[_Asked]] = {}
        for one in asked:
            self._known.setdefault((len(one.start), int(_hashes_of_starts(one.start)[-1])), []).append(one)
        self._lengths = np.array(sorted({length for length, _ in self._known}), np.int64)

    def of(self, tokens: np.ndarray, row: Encoded) -> Iterator[_Asked]:
        lengths = self._lengths[self._lengths <= len(tokens)]
        hashes = _hashes_of_starts(tokens)[lengths - 1]
        images = {image.digest for image in row.images}
        for length, key in zip(lengths.tolist(), hashes.tolist(), strict=True):
            for one in self._known.get((length, key), ()):
                if np.array_equal(one.start, tokens[:length]) and images.issuperset(one.images):
                    yield one


class _Shingles:
    """The runs of SHINGLE tokens of exam rows that are text alone, each with the rows that hold it."""

    def __init__(self, asked: Sequence[_Asked]):
        self._asked = [one for one in asked if not one.images]
        own = [np.unique(_hashes_of_runs(one.tokens)) for one in self._asked]
        every, inverse, counts = np.unique(
            np.concatenate([*own, np.empty(0, np.uint64)]), return_inverse=True, return_counts=True
        )
        places = np.repeat(np.arange(len(own)), [len(one) for one in own])
        kept = (counts <= max(1, SHARED_BY * len(own)))[inverse]
        order = np.argsort(inverse[kept], kind="stable")
        self._hashes = every  # (S,) uint64
        self._holders = places[kept][order]  # rows, by the shingle they hold
        self._ends = np.cumsum(np.bincount(inverse[kept], minlength=len(every)))  # (S,) of each in `_holders`
        self._sizes = np.bincount(places[kept], minlength=len(own))  # (rows,)

    def of(self, tokens: np.ndarray) -> Iterator[tuple[_Asked, float]]:
        runs = np.unique(_hashes_of_runs(tokens))
        places = np.searchsorted(self._hashes, runs)
        inside = places < len(self._hashes)
        hits = places[inside][self._hashes[places[inside]] == runs[inside]]
        if not len(hits):
            return
        starts = np.concatenate([[0], self._ends])
        held = np.concatenate([self._holders[starts[hit] : self._ends[hit]] for hit in hits])
        shares = np.bincount(held, minlength=len(self._asked)) / np.maximum(self._sizes, 1)
        for place in np.flatnonzero((shares >= NEARLY) & (self._sizes >= LEAST_SHINGLES)):
            yield self._asked[place], min(float(shares[place]), 0.999)


def _hashes_of_starts(tokens: np.ndarray) -> np.ndarray:
    """Of the first token, the first two, ...  # (T,) uint64"""
    return np.cumsum((tokens.astype(np.uint64) + np.uint64(1)) * _powers(len(tokens)))


def _hashes_of_runs(tokens: np.ndarray) -> np.ndarray:
    """Of each SHINGLE tokens that follow one another.  # (T - SHINGLE + 1,) uint64"""
    if len(tokens) < SHINGLE:
        return np.empty(0, np.uint64)
    runs = np.lib.stride_tricks.sliding_window_view(tokens, SHINGLE).astype(np.uint64) + np.uint64(1)
    return (runs * _powers(SHINGLE)).sum(axis=1, dtype=np.uint64)


def _powers(count: int) -> np.ndarray:
    return np.cumprod(np.full(count, _BASE, np.uint64))
