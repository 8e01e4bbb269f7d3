"""tokens/encoding.py and what it keeps on the disk: every row accounted for, and the same however it came."""

import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.data import row_kinds
from tunebook.tokens import encoding, token_cache
from tunebook.tokens.encoding import encode_rows
from tunebook.tokens.stored_rows import EncodedRows, lengths_of

TEXT = "the quick brown fox jumps over the lazy dog and then the dog sleeps in the sun. "


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, used for sets of five rows already."""
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoding, "CACHED_ROWS", 5)
    return tmp_path / "cache" / token_cache.FOLDER


def entries(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def as_lists(made):
    return [(row.tokens.tolist(), row.loss_mask.tolist(), row.cut, row.number) for row in made.rows]


# What does not fit


def test_a_row_whose_answer_is_cut_off_never_reaches_the_loss_and_is_counted(model, rows):
    long = {"messages": [{"role": "user", "content": "why " * 60}, {"role": "assistant", "content": "so"}]}
    made = encode_rows([*rows[:5], long, *rows[5:]], model.loaded, max_seq_length=64, name="train_dataset")
    assert [row.number for row in made.rows] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
    assert all(row.supervised_tokens for row in made.rows)
    assert made.account.left_out == [5]
    assert any("1 of 13 rows of train_dataset were left out, the first row 5" in notice for notice in made.notices)


SHORT = {
    "a single token": ({"input_ids": [5]}, "it has a single token, and the first of a row is predicted from nothing"),
    "labels of the first alone": (
        {"input_ids": [5, 6, 7], "labels": [5, -100, -100]},
        "of its 3 tokens at most the first is to be trained on, and that is predicted from nothing",
    ),
}


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("limit", [2, 64])
def test_a_row_with_nothing_to_train_on_is_left_out_for_that_and_not_for_the_length(model, kind, limit):
    row, why = SHORT[kind]
    whole = {"input_ids": [5, 6], "labels": [5, 6]}
    with pytest.raises(ValueError, match=r"^No row of rows has a token to train on") as refused:
        encode_rows([row] * 3, model.loaded, max_seq_length=limit)
    assert str(refused.value).endswith(f"3 of 3 rows of rows were left out, the first row 0: {why}.")
    assert "max_seq_length" not in str(refused.value)
    some = encode_rows([whole, row, whole], model.loaded, max_seq_length=limit)
    assert some.notices == [f"1 of 3 rows of rows were left out, the first row 1: {why}."]
    assert some.account.left_out == [1]


def test_rows_left_out_for_their_length_and_for_having_nothing_are_counted_apart(model):
    long = {"input_ids": [*range(1, 9)], "labels": [*[-100] * 7, 8]}
    made = encode_rows([{"input_ids": [5, 6]}, long, {"input_ids": [5]}, long], model.loaded, max_seq_length=4)
    assert [text.split(": ")[0] for text in made.notices] == [
        "2 of 4 rows of rows were left out, the first row 1",
        "1 of 4 rows of rows were left out, the first row 2",
    ]
    with pytest.raises(ValueError, match="within 4 tokens; raise max_seq_length"):
        encode_rows([long, {"input_ids": [5]}], model.loaded, max_seq_length=4)


def test_cut_rows_are_counted_with_the_longest_cut(model, rows):
    whole = encode_rows(rows, model.loaded, max_seq_length=512).rows
    limit = 40
    made = encode_rows(rows, model.loaded, max_seq_length=limit)
    longer = [len(row.tokens) - limit for row in whole if len(row.tokens) > limit]
    assert longer
    assert any(
        f"{len(longer)} of 12 rows" in text and f"longest by {max(longer)};" in text and "do not end" in text
        for text in made.notices
    )
    for row in made.rows:
        assert len(row.tokens) + row.cut == len(whole[row.number].tokens)
        assert np.array_equal(row.tokens, whole[row.number].tokens[:limit])


@pytest.mark.parametrize("limit", [2, 7, 31, 32, 33, 64])
def test_raw_text_is_trained_in_pieces_that_predict_every_token_once(model, limit):
    row = {"text": TEXT * 3}
    [whole] = encode_rows([row], model.loaded, max_seq_length=4096).rows
    pieces = encode_rows([row], model.loaded, max_seq_length=limit)
    predicted = np.concatenate([piece.tokens[1:][piece.loss_mask[1:]] for piece in pieces.rows])
    assert np.array_equal(predicted, whole.tokens[1:])
    assert all(2 <= len(piece.tokens) <= limit for piece in pieces.rows)
    assert {piece.number for piece in pieces.rows} == {0}
    assert "1 of 1 rows of rows are longer" in pieces.notices[0]
    assert "no token of them is lost" in pieces.notices[0]


def test_when_no_row_keeps_its_answer_the_way_out_is_named(model, rows):
    with pytest.raises(ValueError, match="raise max_seq_length"):
        encode_rows(rows, model.loaded, max_seq_length=3)


def test_nothing_is_said_when_everything_fits(model, rows):
    assert encode_rows(rows, model.loaded, max_seq_length=512).notices == []


def test_rows_tokenized_together_are_those_tokenized_one_by_one(model, rows, monkeypatch):
    mixed = [{"text": TEXT}, {"text": "<|im_start|>opened already"}, {"text": "ünï 🎵 日本"}] * 3
    together = [*as_lists(encode_rows(rows, model.loaded, max_seq_length=64))]
    together += as_lists(encode_rows(mixed, model.loaded, max_seq_length=64))
    monkeypatch.setattr(encoding, "AT_ONCE", 1)
    alone = [*as_lists(encode_rows(rows, model.loaded, max_seq_length=64))]
    alone += as_lists(encode_rows(mixed, model.loaded, max_seq_length=64))
    assert together == alone


# What is kept


def test_a_set_read_from_the_cache_is_the_one_that_was_encoded(model, rows, cache):
    rows = [*rows, {"messages": [{"role": "user", "content": "why " * 60}, {"role": "assistant", "content": "so"}]}]
    plain = encode_rows(rows[:4], model.loaded, max_seq_length=50)
    assert not entries(cache)  # too few to be worth it
    assert isinstance(plain.rows, list)
    first = encode_rows(rows, model.loaded, max_seq_length=50)
    assert isinstance(first.rows, EncodedRows)
    assert len(entries(cache)) == 1
    second = encode_rows(rows, model.loaded, max_seq_length=50, name="again")
    assert as_lists(second) == as_lists(first)
    assert as_lists(plain) == as_lists(first)[:4]
    assert lengths_of(first.rows) == [len(row.tokens) for row in first.rows]
    assert first.rows[-1].number == first.rows[len(first.rows) - 1].number
    assert [row.number for row in first.rows[2:4]] == [2, 3]
    assert second.account.left_out == [12]
    assert [text.replace("again", "rows") for text in second.notices] == first.notices
    assert len(entries(cache)) == 1


def test_from_the_cache_nothing_is_rendered_or_tokenized_again(model, rows, cache, monkeypatch):
    first = as_lists(encode_rows(rows, model.loaded, max_seq_length=50))
    monkeypatch.setattr(row_kinds, "reader", lambda *_, **__: None)  # gives no function to read with
    assert as_lists(encode_rows(rows, model.loaded, max_seq_length=50)) == first


CHANGES = {
    "a row": lambda made: made["rows"].__setitem__(3, made["rows"][4]),
    "the order": lambda made: made["rows"].reverse(),
    "the length": lambda made: made.update(max_seq_length=49),
    "what is supervised": lambda made: made.update(train_on="everything"),
    "the markers": lambda made: made.update(response_markers=("user\n", "assistant\n")),
    "what a row is made into": lambda made: made.update(formatting_func=lambda row: {**row, "note": 1}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_the_tokens_follow_from_is_in_the_key(model, rows, cache, change):
    made = {"rows": list(rows), "max_seq_length": 50}
    encode_rows(made.pop("rows"), model.loaded, **made)
    made = {"rows": list(rows), "max_seq_length": 50}
    CHANGES[change](made)
    encode_rows(made.pop("rows"), model.loaded, **made)
    assert len(entries(cache)) == 2


def test_another_template_or_tokenizer_is_another_entry(model, rows, cache, tmp_path, tiny_folder):
    encode_rows(rows, model.loaded, max_seq_length=50)
    other = model.loaded.tokenizer.chat_template.replace("'\n'", "'\n\n'")
    templated, _ = FastModel.from_pretrained(tiny_folder, chat_template=other)
    encode_rows(rows, templated.loaded, max_seq_length=50)
    assert len(entries(cache)) == 2
    tokenized, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "gpt2", style="gpt2"))
    encode_rows(rows, tokenized.loaded, max_seq_length=50)
    assert len(entries(cache)) == 3


def test_a_template_that_writes_the_date_is_rendered_again_on_another_day(rows, cache, tiny_folder, monkeypatch):
    dated = "{{ strftime_now('%d %b %Y') }}" + FastModel.from_pretrained(tiny_folder)[1].chat_template
    model, _ = FastModel.from_pretrained(tiny_folder, chat_template=dated)
    encode_rows(rows, model.loaded, max_seq_length=100)
    encode_rows(rows, model.loaded, max_seq_length=100)
    assert len(entries(cache)) == 1
    monkeypatch.setattr(token_cache, "time", SimpleNamespace(strftime=lambda pattern: "2031-01-01"))
    encode_rows(rows, model.loaded, max_seq_length=100)
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("damage", ["half of the tokens", "no index", "half of the facts"])
def test_a_damaged_entry_is_made_again(model, rows, cache, damage):
    first = as_lists(encode_rows(rows, model.loaded, max_seq_length=50))
    [entry] = cache.iterdir()
    if damage == "half of the tokens":
        file = entry / "tokens.int32"
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "no index":
        (entry / "index.npz").unlink()
    else:
        (entry / "facts.json").write_text('{"rows": 1')
    assert as_lists(encode_rows(rows, model.loaded, max_seq_length=50)) == first
    assert as_lists(encode_rows(rows, model.loaded, max_seq_length=50)) == first


def test_bad_rows_leave_no_entry(model, rows, cache):
    with pytest.raises(ValueError, match=r"1 of 13 rows of .* cannot be trained on"):
        encode_rows([*rows, {"messages": []}], model.loaded, max_seq_length=50)
    assert not entries(cache)


def test_the_entry_used_longest_ago_goes_first(model, rows, cache, monkeypatch):
    monkeypatch.setattr("tunebook.machine.entries.KEPT", 2)
    for limit in (50, 51):
        encode_rows(rows, model.loaded, max_seq_length=limit)
        time.sleep(0.01)
    oldest = min(cache.iterdir(), key=lambda path: path.stat().st_mtime).name
    encode_rows(rows, model.loaded, max_seq_length=52)
    assert len(entries(cache)) == 2
    assert oldest not in entries(cache)


def test_a_run_goes_on_with_rows_whose_entry_is_removed_under_it(model, rows, cache):
    made = encode_rows(rows, model.loaded, max_seq_length=50)
    before = as_lists(made)
    shutil.rmtree(cache)
    assert as_lists(made) == before
