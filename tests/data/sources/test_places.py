"""sources/places.py: lines of text files count from 1, rows of all else from 0, and every bad one is named at once."""

import json

import pandas
import pytest

from tests.data.sources.row_files import written
from tunebook import hold_out
from tunebook.data.sources import Place, Rows, named, place_of, read_rows, row_number, told


def lines(*numbers: int, file: str = "") -> list[Place]:
    return [Place("line", number, file) for number in numbers]


def test_places_are_named_in_words_and_runs():
    assert named(lines(7)) == "line 7"
    assert named(lines(3, 9)) == "lines 3 and 9"
    assert named(lines(3, 4)) == "lines 3 and 4"
    assert named(lines(3, 4, 5, 9)) == "lines 3 to 5 and 9"
    assert named([*lines(2, file="a.jsonl"), Place("row", 0, "b.parquet")]) == "line 2 of a.jsonl, row 0 of b.parquet"
    assert named([row_number(0)]) == "row 0"
    assert Place("line", 1234, "a.jsonl").title == "Line 1,234 of a.jsonl"


def test_many_places_and_many_reasons_are_told_at_a_length_to_read():
    assert named(lines(*range(1, 200, 2))) == "lines " + ", ".join(map(str, range(1, 22, 2))) + " and 23 and 88 more"
    reasons = {f"reason {number}": lines(*range(20 - number)) for number in range(15)}
    assert len(told(reasons)) == 11
    assert told(reasons)[-1] == f"{sum(20 - number for number in range(10, 15))} more are bad for 5 other reasons."


def test_rows_stand_where_an_editor_and_pandas_show_them(tmp_path):
    texts = ["a", "b", "c"]
    jsonl = written(tmp_path, "a.jsonl", "\n\n".join(json.dumps({"text": text}) for text in texts))
    table = written(tmp_path, "a.csv", 'text\na\n\n"b\nb"\nc\n')
    array = written(tmp_path, "a.json", json.dumps([{"text": text} for text in texts]))
    pandas.DataFrame({"text": texts}).to_parquet(tmp_path / "a.parquet")
    expected = {jsonl: lines(1, 3, 5), table: lines(2, 4, 6)}
    expected |= {path: [row_number(number) for number in range(3)] for path in (array, tmp_path / "a.parquet")}
    for path, places in expected.items():
        rows = read_rows(path)
        assert [place_of(rows, number) for number in range(3)] == places
        train, held_out = hold_out(rows, 1)  # what is picked stands where it stood
        assert sorted(place_of(some, number) for some in (train, held_out) for number in range(len(some))) == places
    frame = read_rows(pandas.DataFrame({"text": texts}))
    assert [place_of(frame, number) for number in range(3)] == [row_number(number) for number in range(3)]


def test_rows_of_a_folder_name_their_file(tmp_path):
    for part in ("part-2.jsonl", "part-10.jsonl"):
        written(tmp_path, part, '{"text": "a"}\n{"text": \n{"text": "c"}\n')
    with pytest.raises(ValueError, match=r"2 of 6 lines are no rows") as refused:
        read_rows(tmp_path)
    assert "line 2 of part-2.jsonl, line 2 of part-10.jsonl: not JSON at column" in str(refused.value)
    rows = read_rows(tmp_path, skip_bad_rows=True)
    assert [str(place_of(rows, number)) for number in (0, 1, 3)] == [
        "line 1 of part-2.jsonl",
        "line 3 of part-2.jsonl",
        "line 3 of part-10.jsonl",
    ]


def test_items_of_a_list_that_are_no_rows_are_named_at_once_and_can_be_left_out():
    items = [{"text": "a"}, None, {"text": "b"}, "c", {3: "d"}, None]
    with pytest.raises(TypeError, match="4 of 6 items are no rows") as refused:
        read_rows(items)
    assert "- rows 1 and 5: it is a NoneType; each row must be a dict." in str(refused.value)
    assert "- row 4: it has a column whose name is a int" in str(refused.value)
    rows = read_rows(items, skip_bad_rows=True)
    assert isinstance(rows, Rows)
    assert list(rows) == [{"text": "a"}, {"text": "b"}]
    assert [place_of(rows, number).number for number in range(2)] == [0, 2]
    assert [one.place.number for one in rows.broken] == [1, 3, 4, 5]


def test_items_of_a_json_array_that_are_no_rows_are_named_together_and_left_out_where_asked(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('[{"text": "a"}, 7,\n {"text": "b"}, null, {"text": "c"}]')
    with pytest.raises(ValueError, match="2 of 5 items are no rows") as refused:
        read_rows(file)
    assert "row 1: it is a number, not an object such as" in str(refused.value)
    assert "(line 2, column 17)" in str(refused.value)
    rows = read_rows(file, skip_bad_rows=True)
    assert [row["text"] for row in rows] == ["a", "b", "c"]
    assert [str(rows.place(number)) for number in range(3)] == ["row 0", "row 2", "row 4"]
    assert [(one.place.number, one.text) for one in rows.broken] == [(1, "7"), (3, "null")]
