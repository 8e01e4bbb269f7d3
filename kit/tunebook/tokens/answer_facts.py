"""Encoded pairs and judged answers -> a few numbers about each, and what they say of the whole set.

Beside `row_facts.py`, for what only answers have: which side is longer, how far both are apart, what contradicts what,
how many labels there are of each kind.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..data.encoded import Encoded

AnswerKind = Literal["length_bias", "both_sides", "labels"]

FEWEST_PAIRS = 10  # that say anything of lengths
BIASED = 2 / 3  # of the pairs whose lengths differ
BALANCED = (1.0, 4 / 3)  # of good answers to bad ones, weighted: Ethayarajh et al. 2024 (2402.01306), equation 8


@dataclass(frozen=True, eq=False)
class AnswerColumns:
    """A few numbers about each row of answers, in the rows' order. Every array is (N,)."""

    number: np.ndarray  # int64, of the row in its source
    first: np.ndarray  # int64, tokens of the chosen answer, or of the one that was judged
    second: np.ndarray  # int64, tokens of the rejected answer; 0 where there is none
    apart: np.ndarray  # int64, tokens of both sides between what they begin with and what they end in
    is_good: np.ndarray  # bool, the label; True for pairs
    both_sides: np.ndarray  # bool, what is chosen here is rejected in another row, behind the same prompt


class Remark(NamedTuple):
    """What is odd about some rows."""

    kind: AnswerKind
    numbers: list[int]
    text: str  # behind the count of rows
    remedy: str


def answer_columns_of(rows: Sequence[Encoded]) -> AnswerColumns | None:
    """The numbers of `rows`, each read once; None for rows that are no answers."""
    if not rows or not (rows[0].second or rows[0].label is not None):
        return None
    numbers: list[tuple[int, int, int, int, bool]] = []
    chosen: list[bytes] = []
    rejected: set[bytes] = set()
    for row in rows:
        sides = row.sequences
        lengths = [side.supervised_tokens for side in sides]
        apart = _apart(sides[0].tokens, sides[1].tokens) if row.second else 0
        numbers.append((row.number, lengths[0], lengths[1] if row.second else 0, apart, row.label is not False))
        chosen.append(_digest(sides[0]) if row.second or row.label else b"")
        if row.second or row.label is False:
            rejected.add(_digest(sides[-1]))
    columns = [np.array(values) for values in zip(*numbers, strict=True)]
    return AnswerColumns(*columns, both_sides=np.array([digest in rejected for digest in chosen]))


def remarks(columns: AnswerColumns) -> Iterator[Remark]:
    """What is worth a warning about a set of answers."""
    if columns.both_sides.any():
        numbers = columns.number[columns.both_sides].tolist()
        text = "whose good answer is another row's bad one, to the same prompt: one takes back what the other teaches."
        yield Remark("both_sides", numbers, text, "Keep one of both rows, with the side you mean.")
    yield from _lengths(columns) if columns.second.any() else _labels(columns)


def _lengths(columns: AnswerColumns) -> Iterator[Remark]:
    longer, shorter = columns.first > columns.second, columns.first < columns.second
    differ = int(longer.sum() + shorter.sum())
    marked, word = (longer, "longer") if longer.sum() >= shorter.sum() else (shorter, "shorter")
    if len(longer) < FEWEST_PAIRS or not differ or marked.sum() < BIASED * differ:
        return
    yield Remark(
        "length_bias",
        columns.number[marked].tolist(),
        f"of {len(longer):,} whose chosen answer is the {word} one, {columns.first.mean():.0f} tokens against "
        f"{columns.second.mean():.0f} on average: length is learnt with the preference.",
        "Balance the pairs, or count lengths out: objectives.DPO(loss_type='sigmoid_norm'), DPO(ld_alpha=0.5) or "
        "SimPO().",
    )


def _labels(columns: AnswerColumns) -> Iterator[Remark]:
    good, bad = int(columns.is_good.sum()), int((~columns.is_good).sum())
    if not good or not bad:
        kind, other = ("good", "bad") if good else ("bad", "good")
        text = f"that are all {kind} answers: what is learnt is their difference from {other} ones."
        yield Remark(
            "labels", columns.number.tolist(), text, f"Add {other} answers, or train on text with no objective."
        )
        return
    least, most = BALANCED
    if least <= good / bad <= most:
        return
    rare = columns.is_good if good < bad else ~columns.is_good
    name, ratio = ("undesirable_weight", good / bad) if good > bad else ("desirable_weight", bad / good)
    between = (ratio / most, ratio / least) if good > bad else (ratio * least, ratio * most)
    yield Remark(
        "labels",
        columns.number[rare].tolist(),
        f"that are {'good' if good < bad else 'bad'} answers, of {good + bad:,}.",
        f"objectives.KTO({name}=...) of {between[0]:.2f} to {between[1]:.2f} gives both kinds their weight.",
    )


def _apart(first: np.ndarray, second: np.ndarray) -> int:
    """Tokens of both between what they begin with and what they end in."""
    shorter = min(len(first), len(second))
    begins = _alike(first[:shorter], second[:shorter])
    ends = min(_alike(first[::-1][:shorter], second[::-1][:shorter]), shorter - begins)
    return len(first) + len(second) - 2 * (begins + ends)


def _alike(ids: np.ndarray, others: np.ndarray) -> int:
    differ = np.flatnonzero(ids != others)
    return int(differ[0]) if differ.size else len(ids)


def _digest(side: Encoded) -> bytes:
    """The same for the same answer to the same prompt, its images among it."""
    seen = b"".join(image.digest for image in side.images)
    return hashlib.blake2b(side.tokens.tobytes() + seen, digest_size=16).digest()
