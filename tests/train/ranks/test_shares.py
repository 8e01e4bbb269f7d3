"""train/ranks/shares.py: every row is dealt out once, whole micro-batches where that is wanted, about evenly."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebook.data.encoded import Encoded
from tunebook.train.ranks.shares import shared_out


def row(number, length):
    return Encoded(tokens=np.zeros(length, np.int32), loss_mask=np.ones(length, bool), number=number)


def batches_of(lengths):
    numbers = iter(range(10_000))
    return [[row(next(numbers), length) for length in batch] for batch in lengths]


LENGTHS = st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 9), may_split=st.booleans())
def test_every_row_is_in_one_share(lengths, size, may_split):
    batches = batches_of(lengths)
    shares = shared_out(batches, size, may_split=may_split)
    assert len(shares) == size
    dealt = sorted(each.number for share in shares for rows in share for each in rows)
    assert dealt == [each.number for rows in batches for each in rows]
    if not may_split:
        assert all(any(rows is batch for batch in batches) for share in shares for rows in share)


@settings(deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 9))
def test_nobody_is_idle_while_another_could_give_a_row(lengths, size):
    shares = shared_out(batches_of(lengths), size, may_split=True)
    if any(not share for share in shares):
        assert all(len(rows) == 1 for share in shares for rows in share)
        assert all(len(share) <= 1 for share in shares)


@settings(deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 9))
def test_the_longest_share_is_within_a_micro_batch_of_the_mean(lengths, size):
    shares = shared_out(batches_of(lengths), size, may_split=False)
    tokens = [sum(len(rows) * max(len(each.tokens) for each in rows) for rows in share) for share in shares]
    largest = max(len(batch) * max(batch) for batch in lengths)
    assert max(tokens) <= sum(tokens) / size + largest


def test_one_process_has_the_micro_batches_as_they_are():
    batches = batches_of([[3, 4], [5]])
    [share] = shared_out(batches, 1, may_split=True)
    assert all(ours is theirs for ours, theirs in zip(share, batches, strict=True))
