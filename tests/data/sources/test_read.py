"""data/sources/read.py: rows of every file and object people have are rows; what is none is refused."""

import os
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

import datasets
import pandas as pd
import pytest

from tests.data.sources.row_files import CHATS, PAIRS, ROWS, WRITERS
from tunebook.data.sources import read_rows


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_read_as_another_library_wrote_them(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path)
    rows = read_rows(path)
    assert list(rows) == PAIRS
    assert list(read_rows(str(path))) == PAIRS


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_indexed_and_sliced_as_a_list_is(name, tmp_path):
    WRITERS[name](tmp_path / name)
    rows = read_rows(tmp_path / name)
    assert isinstance(rows, Sequence)
    assert len(rows) == 25
    assert [rows[index] for index in (0, 24, 7, -1, -25)] == [PAIRS[index] for index in (0, 24, 7, -1, -25)]
    for cut in (slice(3, 9), slice(None, None, -4), slice(30, 40), slice(-6, None)):
        assert list(rows[cut]) == PAIRS[cut]
    assert list(rows[4:20][::3][1:]) == PAIRS[4:20][::3][1:]
    for index in (25, -26):
        with pytest.raises(IndexError):
            rows[index]


def without_none(row: dict) -> list[dict]:
    return [{key: value for key, value in turn.items() if value is not None} for turn in row["messages"]]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(CHATS, id="list"),
        pytest.param(tuple(CHATS), id="tuple"),
        pytest.param((row for row in CHATS), id="generator"),
        pytest.param(dict(enumerate(CHATS)).values(), id="view of a dict"),
        pytest.param(datasets.Dataset.from_list(CHATS), id="Dataset"),
        pytest.param(datasets.Dataset.from_list(CHATS).to_iterable_dataset(), id="IterableDataset"),
        pytest.param(datasets.DatasetDict(validation=datasets.Dataset.from_list(CHATS)), id="DatasetDict"),
        pytest.param(pd.DataFrame(CHATS), id="frame"),
    ],
)
def test_rows_of_an_object_are_its_rows(source):
    rows = read_rows(source)
    # Arrow gives every turn the key that only the assistant's have; without it, the rows are the same.
    assert [without_none(row) for row in rows] == [without_none(row) for row in CHATS]
    assert len(rows[5:9]) == 4
    assert rows[5:9][0] == rows[5]


def test_a_dataset_is_read_by_index_and_not_copied():
    read = []

    def noted(batch):
        read.extend(batch["text"])
        return batch

    dataset = datasets.Dataset.from_list([{"text": str(number)} for number in range(100)])
    dataset.set_transform(noted)
    rows = read_rows(dataset)
    read.clear()
    assert rows[90:][3] == {"text": "93"}
    assert read == ["93"]


class Numbered(Sequence):
    """Rows that are made when they are asked for, as a library of somebody's own may do."""

    def __len__(self):
        return 9

    def __getitem__(self, index: int):
        if not 0 <= index < 9:
            raise IndexError(index)
        return {"text": str(index)} if index != self.broken else str(index)

    broken = None


def test_a_sequence_of_ones_own_is_read_by_index_and_checked_first(monkeypatch):
    rows = read_rows(Numbered())
    assert rows[-3:][1] == {"text": "7"}
    assert not isinstance(rows, list)
    monkeypatch.setattr(Numbered, "broken", 5)
    with pytest.raises(TypeError, match="Row 5 of train_dataset is a str"):
        read_rows(Numbered())


def test_a_module_that_only_has_the_name_of_a_library_is_no_obstacle(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", ModuleType("datasets"))
    assert read_rows(iter(ROWS)) == ROWS


def test_neither_the_kit_nor_a_list_of_rows_needs_the_heavy_libraries():
    code = (
        "import sys, tunebook; from tunebook.data.sources import read_rows, hold_out; "
        "hold_out(read_rows([{'text': 'a'}, {'text': 'b'}]), 1); "
        "print([name for name in ('datasets', 'pandas', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "[]\n"


def test_a_row_that_is_no_dict_is_named():
    with pytest.raises(TypeError, match="Row 1 of train_dataset is a str"):
        read_rows([{"text": "a"}, "b"])
    with pytest.raises(TypeError, match="Row 0 of train_dataset is a DataFrame"):
        read_rows(datasets.Dataset.from_list(ROWS).with_format("pandas"))


@pytest.mark.parametrize("source", [{"text": "a"}, b"a.jsonl", 7, None])
def test_what_is_no_collection_of_rows_is_refused(source):
    with pytest.raises(TypeError, match=f"train_dataset is a {type(source).__name__}; pass a list of rows"):
        read_rows(source)


@pytest.mark.parametrize("source", [[], iter(()), pd.DataFrame({"text": []}), datasets.Dataset.from_list([])])
def test_a_source_without_rows_is_refused(source):
    with pytest.raises(ValueError, match="eval_dataset is empty"):
        read_rows(source, "eval_dataset")
