"""tokens/packing.py: no document is lost, cut or met twice, and few places of a row stay empty."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.packed_rows import ROW, rows_of
from tunebook.data.encoded import Encoded
from tunebook.tokens.packing import documents, fullness, pack, packing_notice


@settings(deadline=None)
@given(st.lists(st.integers(1, ROW), min_size=1, max_size=60), st.integers(0, 9))
def test_every_document_comes_back_whole_and_once_and_no_row_is_too_long(lengths, seed):
    rows = rows_of(lengths)
    packed = pack(rows, ROW, seed=seed)
    assert all(len(row.tokens) == len(row.loss_mask) <= ROW for row in packed)
    found = []
    for row in packed:
        segments = np.zeros(len(row.tokens), np.int32) if row.segments is None else row.segments
        assert segments.tolist() == sorted(segments)
        assert documents(row) == len(set(segments.tolist()))
        found += [
            (row.tokens[segments == number].tolist(), row.loss_mask[segments == number][1:].tolist())
            for number in range(documents(row))
        ]
    assert sorted(found) == sorted((row.tokens.tolist(), row.loss_mask[1:].tolist()) for row in rows)
    assert sum(row.supervised_tokens for row in packed) == sum(row.supervised_tokens for row in rows)
    assert sum(row.cut for row in packed) == len(rows)


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(1, ROW - 1), max_size=8), min_size=1, max_size=25), st.integers(0, 9))
def test_there_are_at_most_eleven_ninths_of_the_fewest_rows_and_four_more(cuts, seed):
    """The documents are full rows cut in pieces, so the fewest rows are known."""
    lengths = [int(length) for places in cuts for length in np.diff([0, *sorted(places), ROW])]
    assert len(cuts) <= len(pack(rows_of(lengths), ROW, seed=seed)) <= 11 / 9 * len(cuts) + 4


def test_rows_of_the_lengths_of_real_data_are_packed_to_within_a_hundredth_of_full():
    lengths = np.random.default_rng(0).lognormal(5, 1, 3000).astype(int).clip(2, 1024).tolist()
    packed = pack(rows_of(lengths), 1024, seed=0)
    assert fullness(packed, max_seq_length=1024) > 0.99


def test_a_documents_first_token_is_never_supervised():
    rows = [Encoded(tokens=np.arange(size, dtype=np.int32), loss_mask=np.ones(size, dtype=bool)) for size in (5, 3, 4)]
    [row] = pack(rows, 12, seed=0)
    assert row.loss_mask.tolist() == [False, *[True] * 4, False, *[True] * 2, False, *[True] * 3]
    assert row.segments is not None
    assert row.segments.tolist() == [0] * 5 + [1] * 3 + [2] * 4
    assert all(row.loss_mask.all() for row in rows)


def test_rows_come_in_the_order_of_the_documents():
    packed = pack(rows_of([30, 10, 20, 60, 34]), ROW, seed=0)
    assert [[len(row.tokens), documents(row)] for row in packed] == [[64, 2], [30, 2], [60, 1]]
    assert [row.tokens[0] for row in packed] == [rows_of([30, 10, 20, 60, 34])[index].tokens[0] for index in (0, 1, 3)]


def test_the_seed_alone_decides_which_rows_of_one_length_meet():
    def tokens(seed):
        return [row.tokens.tolist() for row in pack(rows_of([16] * 40), ROW, seed=seed)]

    assert tokens(3) == tokens(3)
    assert tokens(3) != tokens(4)


def test_rows_that_fit_in_no_row_are_refused_with_their_number():
    with pytest.raises(ValueError, match=r"2 of 3 rows have more than 64 tokens \(first: row 1, 65\)"):
        pack(rows_of([64, 65, 70]), ROW, seed=0)


def test_packed_rows_are_not_packed_again():
    with pytest.raises(ValueError, match=r"1 of 1 rows are packed already \(first: row 0\)"):
        pack(pack(rows_of([5, 6]), ROW, seed=0), ROW, seed=0)


def test_the_notice_counts_documents_and_rows_and_says_how_full_they_are():
    packed = pack(rows_of([48, 16, 32]), ROW, seed=0)
    assert fullness(packed, max_seq_length=ROW) == 0.75
    assert packing_notice(packed, max_seq_length=ROW) == "3 rows were packed into 2, which fill 75% of 64 tokens each."


def test_a_batch_without_packed_rows_has_no_segments_and_padding_has_one_of_its_own(model):
    assert "segments" not in model.family.collate(rows_of([5, 3]), 6)
    [pair] = pack(rows_of([2, 1]), 3, seed=0)
    batch = model.family.collate([pair, *rows_of([5])], 6)
    assert batch["segments"].dtype == mx.int32
    assert batch["segments"].tolist() == [[0, 0, 1, -1, -1, -1], [0, 0, 0, 0, 0, -1]]
