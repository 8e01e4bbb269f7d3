import pytest

from tunebook.sources import hold_out, read_rows

ROWS = [{"text": f"row {number % 8}"} for number in range(20)]  # each text occurs two or three times


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


@pytest.mark.parametrize("count", [0, 8, 99])
def test_a_split_that_leaves_nothing_on_one_side_is_refused(count):
    with pytest.raises(ValueError, match=f"Cannot hold out {count} of 8 distinct rows"):
        hold_out(ROWS, count)


def test_a_row_that_is_no_dict_is_named():
    with pytest.raises(TypeError, match="Row 1 of train_dataset is a str"):
        read_rows([{"text": "a"}, "b"])


def test_an_empty_set_and_a_single_dict_are_refused():
    with pytest.raises(ValueError, match="eval_dataset is empty"):
        read_rows([], "eval_dataset")
    with pytest.raises(TypeError, match="pass a list of rows"):
        read_rows({"text": "a"})
