"""Which tokens of a row a page shows: all, or of a huge one its two ends; of a pair both answers under one prompt.

A row goes in; two stretches of tokens come out, what lies between them, and how much of the row is not shown.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

HEAD, TAIL = 700, 300  # tokens shown of a longer row
REJECTED = "✗ rejected in its place:"


class EncodedLike(Protocol):
    """A row as numbers."""

    @property
    def tokens(self) -> np.ndarray: ...  # (T,) ids
    @property
    def loss_mask(self) -> np.ndarray: ...  # (T,) bool
    @property
    def cut(self) -> int: ...  # tokens that were cut off behind
    @property
    def number(self) -> int: ...  # in its source
    @property
    def second(self) -> int: ...  # where the rejected side of a pair begins; 0: it is none
    @property
    def label(self) -> bool | None: ...  # whether a judged answer is a good one; None: it is none


@dataclass(frozen=True)
class Stretch:
    """Tokens that are shown one after another."""

    tokens: list[int]
    trained: list[bool]


@dataclass(frozen=True)
class Spread:
    """What a page shows of a row."""

    head: Stretch
    tail: Stretch
    hidden_tokens: int
    hidden_trained: int
    between: str  # what stands between both; empty: nothing but what is hidden

    @property
    def shown_trained(self) -> int:
        """Trained tokens among those shown."""
        return sum(self.head.trained) + sum(self.tail.trained)


def spread(row: EncodedLike) -> Spread:
    """What is shown of `row`."""
    tokens, trained = row.tokens.tolist(), row.loss_mask.tolist()
    for first in (0, row.second):
        trained[first] = False  # the first token of a sequence is never predicted
    if row.second:
        return _spread_pair(tokens, trained, row.second)
    head = tail = len(tokens)
    if len(tokens) > HEAD + TAIL:
        head, tail = HEAD, len(tokens) - TAIL
    return Spread(
        Stretch(tokens[:head], trained[:head]),
        Stretch(tokens[tail:], trained[tail:]),
        hidden_tokens=tail - head,
        hidden_trained=sum(trained[head:tail]),
        between="",
    )


def _spread_pair(tokens: list[int], trained: list[bool], second: int) -> Spread:
    """The prompt, of a huge one its end, and the chosen answer; then the rejected one without the prompt."""
    prompt = trained.index(True) if True in trained[:second] else second
    start = max(0, prompt - HEAD // 2)
    head = slice(start, min(second, start + HEAD))
    answer = second + prompt
    tail = slice(answer, min(len(tokens), answer + HEAD))
    shown = Stretch(tokens[head], trained[head]), Stretch(tokens[tail], trained[tail])
    return Spread(
        *shown,
        hidden_tokens=len(tokens) - prompt - len(shown[0].tokens) - len(shown[1].tokens),
        hidden_trained=sum(trained) - sum(shown[0].trained) - sum(shown[1].trained),
        between=REJECTED,
    )
