import pytest

from tunebook.encoding import encode_rows


def test_a_row_whose_answer_is_cut_off_never_reaches_the_loss_and_is_counted(model, rows):
    long = {"messages": [{"role": "user", "content": "why " * 60}, {"role": "assistant", "content": "so"}]}
    made = encode_rows([*rows, long], model.loaded, max_seq_length=64, name="train_dataset")
    encoded, notices = made.rows, made.notices
    assert len(encoded) == len(rows)
    assert all(row.supervised_tokens for row in encoded)
    assert any("1 of 13 rows of train_dataset were left out" in notice for notice in notices)


def test_cut_rows_are_counted_with_the_longest_cut(model, rows):
    whole = encode_rows(rows, model.loaded, max_seq_length=512).rows
    limit = 40
    made = encode_rows(rows, model.loaded, max_seq_length=limit)
    encoded, notices = made.rows, made.notices
    longer = [len(row.tokens) - limit for row in whole if len(row.tokens) > limit]
    assert longer
    assert any(f"{len(longer)} of 12 rows" in text and f"longest by {max(longer)};" in text for text in notices)
    assert all(len(row.tokens) <= limit for row in encoded)


def test_when_no_row_keeps_its_answer_the_way_out_is_named(model, rows):
    with pytest.raises(ValueError, match="raise max_seq_length"):
        encode_rows(rows, model.loaded, max_seq_length=3)


def test_nothing_is_said_when_everything_fits(model, rows):
    assert encode_rows(rows, model.loaded, max_seq_length=512).notices == []
