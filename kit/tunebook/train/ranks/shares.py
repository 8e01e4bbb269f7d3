"""Which process computes which rows of a step: the micro-batches as they were planned in, one share for each out.

The rows of a step are the same however many processes there are, so that its update is, and a run may go on with more
of them or fewer.
"""

from collections.abc import Sequence

from ...data.encoded import Encoded

Rows = Sequence[Encoded]


def shared_out(batches: Sequence[Rows], size: int, *, may_split: bool) -> list[list[Rows]]:
    """`batches` dealt out to `size` processes, each with about as many tokens; some may have none.

    Where there are fewer than processes the largest are split by their rows, unless a micro-batch must stay whole.
    Each process has its own in the order they were planned in.
    """
    if size == 1:
        return [list(batches)]
    pieces = list(batches)
    while may_split and len(pieces) < size:
        splittable = [number for number, rows in enumerate(pieces) if len(rows) > 1]
        if not splittable:
            break
        largest = max(splittable, key=lambda number: _cost(pieces[number]))
        pieces[largest : largest + 1] = _halves(pieces[largest])
    shares: list[list[int]] = [[] for _ in range(size)]
    loads = [0] * size
    for number in sorted(range(len(pieces)), key=lambda number: -_cost(pieces[number])):
        least = loads.index(min(loads))
        shares[least].append(number)
        loads[least] += _cost(pieces[number])
    return [[pieces[number] for number in sorted(share)] for share in shares]


def _cost(rows: Rows) -> int:
    """Tokens of a batch of `rows`, padding included; of pairs both sides."""
    return sum(len(row.sequences) for row in rows) * max(row.longest for row in rows)


def _halves(rows: Rows) -> tuple[Rows, Rows]:
    """`rows` cut in two where both have about as many tokens."""
    lengths = [len(row.tokens) for row in rows]
    cut = min(range(1, len(rows)), key=lambda cut: abs(sum(lengths[:cut]) - sum(lengths[cut:])))
    return rows[:cut], rows[cut:]
