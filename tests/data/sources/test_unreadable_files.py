"""A file that cannot be read is refused in one sentence: where, what, and the next move."""

import pytest

from tests.data.sources.row_files import WRITERS, written
from tunebook.data.sources import read_rows

# What is wrong with a file, and the sentence about it: where, what, and the next move.
MALFORMED = {
    "broken json": (
        "a.jsonl",
        '{"text": "a"}\n\n{"text": "b}\n',
        r"a\.jsonl, line 3: not JSON at column 10: Untermin.* Correct",
    ),
    "cut short": ("a.jsonl", '{"text": "a"}\n{"text":', r"a\.jsonl, line 2: not JSON at column 9: Expecting value"),
    "two objects on a line": (
        "a.jsonl",
        '{"text": "a"} {"text": "b"}\n',
        r"a\.jsonl, line 1: not JSON at column 15: Extra",
    ),
    "no object": (
        "a.jsonl",
        '{"text": "a"}\n"b"\n',
        r'a\.jsonl, line 2: it is a string, not an object such as \{"text"',
    ),
    "an array as lines": ("a.jsonl", '{"a": 1}\n[{"a": 2}]\n', r"a\.jsonl, line 2: it is an array, not an object"),
    "no UTF-8": (
        "a.jsonl",
        b'{"text": "a"}\n{"text": "\xff"}\n',
        r"a\.jsonl, line 2 is not UTF-8: byte 24 .* 0xff\. .* save it as UTF-8",
    ),
    "no UTF-8 on the first line": ("a.jsonl", b"\xef\xbb\xbf\xff\n", r"a\.jsonl, line 1 is not UTF-8: byte 3 .* 0xff"),
    "half an emoji": (
        "a.jsonl",
        '{"a": "\\ud83d\\ude00"}\n{"a": "\\ud83d"}',
        r"a\.jsonl, line 2: it holds half a char.*, \\ud83d",
    ),
    "half an emoji in an array": (
        "a.json",
        '[{"a": ["\\ude00"]}]',
        r"a\.json, row 0: it holds half a char.*\(line 1, column 2\)",
    ),
    "UTF-16": ("a.json", "[]".encode("utf-16"), r"a\.json, line 1 is not UTF-8: byte 0 of the file is 0x"),
    "no UTF-8 behind a mark": ("a.csv", b"\xef\xbb\xbfa\n\xe4\n", r"a\.csv, line 2 is not UTF-8: byte 5 .* 0xe4"),
    "a broken array": (
        "a.json",
        '[{"a": 1},\n {"a": 2}\n {"a": 3}]',
        r"a\.json, line 3: not JSON at column 2: Expecting ',' del",
    ),
    "an array of others": (
        "a.json",
        '[{"a": [1]} ,\n\n  7]',
        r"a\.json, row 1: it is a number, not an object .* \(line 3, column 3\)\. Correct that item, .*skip_bad",
    ),
    "one object": (
        "a.json",
        '{\n "data": []\n}',
        r"a\.json begins with an object that goes on over several lines.* pass rows made by",
    ),
    "broken lines of json": (
        "a.json",
        '{"a": 1}\n{"a": }\n',
        r"a\.json, line 2: not JSON at column 7: Expecting value",
    ),
    "old line ends": ("a.csv", "a,b\r1,2\r", r"a\.csv, the row .* line 1 is not CSV: a carriage return .* Save"),
    "too many cells": (
        "a.csv",
        'a,b\n"1\n1",2\n3,4,5\n',
        r"a\.csv, line 4: 3 cells, but the header names 2.* put quotes",
    ),
    "an open quote": (
        "a.csv",
        'a,b\n1,2\n3,"4\n5,6\n',
        r"a\.csv, the row that begins on line 3 is not CSV: .*never closed",
    ),
    "text behind a quote": (
        "a.csv",
        'a,b\n\n"1"1,2\n',
        r"a\.csv, the row that begins on line 3 is not CSV: ',' expected",
    ),
    "a huge cell": (
        "a.csv",
        f"a\n{'x' * 200_000}\n",
        r"a\.csv, the row .* line 2 .*larger than field limit.*field_size_limit",
    ),
    "a column twice": ("a.csv", "\na,b,a\n1,2,3\n", r"a\.csv, line 2 names the column 'a' twice"),
    "semicolons": (
        "a.csv",
        "prompt;completion\n1;2\n",
        r"a\.csv, line 1 names one column.* separated by ';'.*read_csv",
    ),
    "only a header": ("a.csv", "a,b\n", r"a\.csv holds no rows\. Delete it"),
    "no parquet": ("a.parquet", "hello, world", r"a\.parquet is not a whole parquet file: .* again"),
    "empty jsonl": ("a.jsonl", "", r"a\.jsonl holds no rows"),
    "blank jsonl": ("a.jsonl", "\n \n", r"a\.jsonl holds no rows"),
    "empty json": ("a.json", "", r"a\.json holds no rows"),
    "an empty array": ("a.json", "[]", r"a\.json holds no rows"),
    "empty csv": ("a.csv", "", r"a\.csv holds no rows"),
    "empty parquet": ("a.parquet", "", r"a\.parquet holds no rows"),
    "unknown suffix": ("a.tsv", "a\tb\n", r"a\.tsv ends in \.tsv; \.parquet, \.json, \.jsonl, \.csv can be read"),
    "no suffix": ("LICENSE", "a", r"LICENSE has no suffix; \.parquet"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_file_that_cannot_be_read_is_refused_when_opened_with_the_place(case, tmp_path):
    name, content, said = MALFORMED[case]
    with pytest.raises(ValueError, match=said) as raised:
        read_rows(written(tmp_path, name, content))
    assert str(raised.value).startswith(str(tmp_path / name))
    assert "\n" not in str(raised.value)
    assert type(raised.value) is ValueError


@pytest.mark.parametrize("name", ["lines.jsonl", "rows.csv", "groups.parquet"])
def test_a_file_that_changes_after_it_was_opened_is_never_misread(name, tmp_path):
    WRITERS[name](tmp_path / name)
    rows = read_rows(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(b"\n" + content)
    with pytest.raises(ValueError, match="has changed since it was opened"):
        rows[3]
