"""data/sources: what CSV and JSON files have in common, and the modules csv and json as the judges of each."""

import csv
import json
import tracemalloc

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.data.sources.row_files import written
from tunebook.data.sources import read_rows


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n  \n"])
def test_blank_lines_a_byte_order_mark_and_either_line_end_are_accepted(tmp_path, end, mark, last):
    text = ('{"text": "ä"}\n\n{"text": "b"}' + last).replace("\n", end)
    for name in ("a.jsonl", "a.json"):
        assert list(read_rows(written(tmp_path, name, mark + text.encode()))) == [{"text": "ä"}, {"text": "b"}]
    array = ('\n [{"text": "ä"},\n{"text": "b"}]' + last).replace("\n", end)
    assert list(read_rows(written(tmp_path, "b.json", mark + array.encode()))) == [{"text": "ä"}, {"text": "b"}]
    table = ("text\nä\n\nb" + last.replace(" ", "")).replace("\n", end)
    assert list(read_rows(written(tmp_path, "a.csv", mark + table.encode()))) == [{"text": "ä"}, {"text": "b"}]


def test_empty_and_missing_cells_of_a_csv_are_none_and_nothing_else_is(tmp_path):
    path = written(tmp_path, "a.csv", 'a,b,c\n1,,NA\n\n"",nan\n')
    assert list(read_rows(path)) == [{"a": "1", "b": None, "c": "NA"}, {"a": None, "b": "nan", "c": None}]


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
# The same examples in every run, and no limit of time for one, on a machine that others compute on.
SAME = settings(derandomize=True, database=None, deadline=None)


@SAME
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_csv_the_csv_module_writes_is_read_as_the_csv_module_reads_it(tmp_path_factory, cells, end, quoted):
    # The writer quotes a carriage return only where it is part of the line end; unquoted it is ambiguous, and refused.
    assume(quoted or end == "\r\n" or not any("\r" in cell for row in cells for cell in row))
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
        writer.writerows([("prompt", "completion"), *cells])
    with path.open(newline="", encoding="utf-8") as file:
        expected = [{key: cell or None for key, cell in row.items()} for row in csv.DictReader(file)]
    rows = read_rows(path)
    assert list(rows) == expected
    assert [rows[index] for index in reversed(range(len(rows)))] == expected[::-1]


@SAME
@given(st.lists(st.dictionaries(CELLS, CELLS | st.none() | st.lists(CELLS)), min_size=1), st.booleans())
def test_any_json_lines_the_json_module_writes_are_read_back(tmp_path_factory, rows, ascii_only):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows), encoding="utf-8")
    assert list(read_rows(path)) == rows


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_rows_of_a_file(suffix, tmp_path):
    def peak_bytes(count: int) -> int:
        path = tmp_path / f"{count}.{suffix}"
        row = '{{"text": "row {}, of as many letters"}}\n' if suffix == "jsonl" else '"row {}, of as many letters"\n'
        with path.open("w") as file:
            file.writelines(row.format(number) for number in range(count + 1))  # the first names a CSV file's column
        tracemalloc.start()
        rows = read_rows(path)
        assert sum(len(row) for row in rows) == len(rows) >= count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(50_000) - peak_bytes(10_000) < 1_000_000
