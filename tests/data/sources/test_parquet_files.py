"""data/sources/parquet_files.py: damage is named, and one row group is in memory at a time."""

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.data.sources.row_files import WRITERS, written
from tunebook.data.sources import read_rows


def test_a_parquet_file_cut_anywhere_is_refused(tmp_path):
    WRITERS["groups.parquet"](tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for size in range(1, len(whole), 97):
        with pytest.raises(ValueError, match=r"cut\.parquet is not a whole parquet file"):
            read_rows(written(tmp_path, "cut.parquet", whole[:size]))


def test_a_damaged_row_group_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"{number} " * 50 for number in range(40)]})
    parquet.write_table(table, path, row_group_size=10, use_dictionary=False, compression="zstd")
    at = parquet.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[at : at + 60] = bytes(60)
    rows = read_rows(written(tmp_path, "a.parquet", bytes(content)))
    assert rows[19] == {"text": "19 " * 50}
    with pytest.raises(ValueError, match=r"a\.parquet, row group 2 \(rows 20 to 29\) is damaged: .* again"):
        rows[25]


def test_one_row_group_of_a_parquet_file_is_in_memory_at_a_time(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": [f"{number} " * 200 for number in range(8000)]}), path, row_group_size=100)
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() for _ in read_rows(path)) - before
    assert peak < parquet.read_table(path).nbytes / 5
