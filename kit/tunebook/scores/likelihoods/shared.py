"""What rows begin with alike: which tokens are worth reading once, and which rows go on behind them.

A few examples stand before every question of a task, and a question before each of its choices. Both are found by the
tokens alone, so that whoever asks need not say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ...data.encoded import Encoded

WORTH = 32  # tokens that reading once must save: a further pass over the weights takes as long as some of them
DEEPEST = 3  # beginnings behind one another: the examples, the question, and what its choices have in common


@dataclass
class Beginning:
    """Tokens that several rows have, behind those of the beginning it is an inner one of."""

    row: int  # the place of one that has them
    start: int  # of its tokens
    end: int
    rows: list[int] = field(default_factory=list)  # the places of those that go on directly behind them
    inner: list["Beginning"] = field(default_factory=list)

    def __len__(self) -> int:
        return self.end - self.start


def beginnings(rows: Sequence[Encoded]) -> tuple[list[Beginning], list[int]]:
    """What is worth reading once, and the places of the rows that are read whole.

    Of a row all may be shared but the states that predict a supervised token.
    """
    order, alike = _sorted(rows)
    whole = Beginning(0, 0, 0)
    todo = [(0, len(rows), whole, 0)]  # from, to (in `order`), what they stand behind and how deep that is
    while todo:
        low, high, behind, depth = todo.pop()
        if high - low <= 1 or depth == DEEPEST:
            behind.rows.extend(order[low:high])
            continue
        end = int(alike[low : high - 1].min())
        if (high - low - 1) * (end - behind.end) >= WORTH:
            found = Beginning(order[low], behind.end, end)
            behind.inner.append(found)
            behind, depth = found, depth + 1
        cuts = [low, *(low + 1 + np.flatnonzero(alike[low : high - 1] == end)).tolist(), high]
        todo.extend((one, other, behind, depth) for one, other in pairwise(cuts))
    return whole.inner, whole.rows


def _sorted(rows: Sequence[Encoded]) -> tuple[list[int], np.ndarray]:
    """(the places of `rows` by their tokens, (N-1,) how many tokens of each the next has too and both may share)."""
    order = sorted(range(len(rows)), key=lambda place: rows[place].tokens.astype(">i4").tobytes())
    free = [int(np.argmax(rows[place].loss_mask[1:])) for place in order]
    alike = [
        _alike(rows[one].tokens[:first], rows[other].tokens[:second])
        for (one, first), (other, second) in pairwise(zip(order, free, strict=True))
    ]
    return order, np.array(alike, np.int64)


def _alike(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two texts begin with alike."""
    shorter = min(len(one), len(other))
    differ = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(differ[0]) if differ.size else shorter
