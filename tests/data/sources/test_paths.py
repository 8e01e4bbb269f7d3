"""data/sources/paths.py: what a path may be, what a folder is read as, and what is said of one that is not there."""

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.data.sources.row_files import lines_of, written
from tunebook.data.sources import read_rows


def test_a_missing_path_is_named_with_what_is_there(tmp_path):
    written(tmp_path, "train.jsonl", "{}")
    for source in (tmp_path / "trian.jsonl", str(tmp_path / "trian.jsonl")):
        with pytest.raises(FileNotFoundError, match=r"no 'trian\.jsonl' in .*; did you mean train\.jsonl\?"):
            read_rows(source)
    with pytest.raises(FileNotFoundError, match=f"no 'dta' in {tmp_path}; check the path"):
        read_rows(tmp_path / "dta" / "deeper" / "train.jsonl")


@pytest.mark.parametrize("text", ['{"text": "a"}', "word " * 2000, "a\nb"])
def test_text_that_is_no_source_is_called_a_missing_path(text):
    with pytest.raises(FileNotFoundError, match=r"There is no .* give a hub id: owner/name") as raised:
        read_rows(text)
    assert len(str(raised.value)) < 300


def test_an_empty_string_and_an_address_are_refused():
    with pytest.raises(ValueError, match="train_dataset is an empty string"):
        read_rows("")
    with pytest.raises(ValueError, match=r"https://a\.b/c\.jsonl is an address; download"):
        read_rows("https://a.b/c.jsonl")


def test_an_existing_path_wins_over_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "owner/name/a.jsonl", '{"text": "mine"}')
    assert list(read_rows("owner/name")) == [{"text": "mine"}]
    written(tmp_path, "owner/named.jsonl", '{"text": "mine too"}')
    assert list(read_rows("owner/named.jsonl")) == [{"text": "mine too"}]


def test_files_of_a_folder_follow_one_another_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        written(tmp_path, f"part-{number}.jsonl", lines_of(f"{number}a", f"{number}b"))
    written(tmp_path, "part-3.json", '[{"text": "3a"}]')
    rows = read_rows(tmp_path)
    texts = ["1a", "1b", "2a", "2b", "3a", "10a", "10b"]
    assert [row["text"] for row in rows] == texts
    assert [rows[index]["text"] for index in range(-7, 7)] == texts * 2
    assert [row["text"] for row in rows[::-2]] == texts[::-2]


def test_hidden_files_other_files_and_folders_are_passed_over(tmp_path):
    written(tmp_path, "a.jsonl", lines_of("a"))
    for name in ("._a.jsonl", ".b.csv", "README.md", "deeper/c.csv"):
        written(tmp_path, name, "no rows")
    (tmp_path / "d.parquet").mkdir()
    assert list(read_rows(tmp_path)) == [{"text": "a"}]


def test_parquet_files_come_first_when_it_is_a_folder(tmp_path):
    written(tmp_path, "a.jsonl", lines_of("a"))
    written(tmp_path, "parquet-files", "a file of that name")
    assert list(read_rows(tmp_path)) == [{"text": "a"}]
    (tmp_path / "parquet-files").unlink()
    (tmp_path / "parquet-files").mkdir()
    for number in (2, 10):
        parquet.write_table(pa.table({"text": [str(number)]}), tmp_path / "parquet-files" / f"{number}.parquet")
    assert list(read_rows(tmp_path)) == [{"text": "2"}, {"text": "10"}]


def test_a_folder_of_several_formats_is_refused(tmp_path):
    written(tmp_path, "a.jsonl", lines_of("a"))
    written(tmp_path, "b.csv", "text\nb\n")
    with pytest.raises(
        ValueError, match=r"mixes several formats: 1 \.csv \(b\.csv\), 1 \.json \(a\.jsonl\)\. Pass one"
    ):
        read_rows(tmp_path)


@pytest.mark.parametrize("other", ["test.jsonl", "valid.jsonl", "data-validation-00001.jsonl"])
def test_a_folder_of_several_splits_is_refused_so_that_nobody_trains_on_the_test(other, tmp_path):
    written(tmp_path, "train.jsonl", lines_of("a"))
    written(tmp_path, "train2.jsonl", lines_of("a"))
    assert len(read_rows(tmp_path)) == 2
    written(tmp_path, other, lines_of("b"))
    with pytest.raises(
        ValueError, match=rf"mixes several splits: .*1 \w+ \({other}\), 2 train|2 train .*1 \w+ \({other}"
    ):
        read_rows(tmp_path)


def test_a_folder_without_rows_is_named_with_the_sub_folder_that_has_some(tmp_path):
    written(tmp_path, ".ipynb_checkpoints/a.jsonl", lines_of("a"))
    with pytest.raises(ValueError, match=f"{tmp_path} holds no .parquet, .json, .jsonl, .csv file. Check the path"):
        read_rows(tmp_path)
    written(tmp_path, "data/a.jsonl", lines_of("a"))
    with pytest.raises(ValueError, match=f"Pass {tmp_path / 'data'}, which does"):
        read_rows(tmp_path)
    written(tmp_path, "data/b.jsonl", "")
    with pytest.raises(ValueError, match=r"b\.jsonl holds no rows"):
        read_rows(tmp_path / "data")
