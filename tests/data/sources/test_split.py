"""data/sources/split.py: which rows are held out, and that no copy of one is trained on."""

import random

import pytest

from tests.data.sources.row_files import PAIRS, ROWS, WRITERS
from tunebook.data.sources import hold_out, read_rows


def test_no_copy_of_a_held_out_row_is_trained_on():
    train, held_out = hold_out(ROWS, 3)
    assert len({row["text"] for row in held_out}) == len(held_out) == 3
    assert not [row for row in train if row in held_out]


def test_rows_that_are_not_held_out_all_stay_and_keep_their_order():
    train, held_out = hold_out(ROWS, 3)
    assert train == [row for row in ROWS if row not in held_out]


def test_the_same_seed_holds_out_the_same_rows_and_another_seed_others():
    assert hold_out(ROWS, 3, seed=1) == hold_out(ROWS, 3, seed=1)
    assert len({tuple(row["text"] for row in hold_out(ROWS, 3, seed=seed)[1]) for seed in range(8)}) > 1


@pytest.mark.parametrize("seed", [0, 3407])
@pytest.mark.parametrize("count", [1, 7, 120])
def test_the_rows_held_out_are_a_sample_of_the_distinct_rows(seed, count):
    rows = [{"text": str(number * number % 347), "number": number % 2} for number in range(1000)]
    distinct = list(dict.fromkeys((row["text"], row["number"]) for row in rows))
    chosen = random.Random(seed).sample(distinct, count)
    train, held_out = hold_out(rows, count, seed)
    assert [(row["text"], row["number"]) for row in held_out] == [row for row in distinct if row in chosen]
    assert [(row["text"], row["number"]) for row in train] == [
        key for row in rows if (key := (row["text"], row["number"])) not in chosen
    ]


@pytest.mark.parametrize("count", [0, 8, 99, 0.0, 1.0, 3.0, -0.5, 0.99])
def test_a_split_that_leaves_nothing_on_one_side_is_refused(count):
    with pytest.raises(ValueError, match=f"Cannot hold out {count} of 8 distinct rows; choose between 1 and 7"):
        hold_out(ROWS, count)


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.25, 2), (0.4, 3), (0.8, 6)])
def test_a_share_is_of_the_distinct_rows(share, count):
    assert hold_out(ROWS, share) == hold_out(ROWS, count)


@pytest.mark.parametrize("name", ["lines.jsonl", "rows.csv", "groups.parquet", "saved"])
def test_a_file_is_split_as_the_list_of_its_rows_is(name, tmp_path):
    WRITERS[name](tmp_path / name)
    expected = hold_out(PAIRS, 6)
    for source in (tmp_path / name, read_rows(tmp_path / name)):
        split = hold_out(source, 6)
        assert tuple(list(part) for part in split) == expected
        assert [part[-1] for part in split] == [part[-1] for part in expected]
        assert hold_out(split[0], 2)[1][0] in expected[0]
