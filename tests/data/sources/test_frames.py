"""data/sources/frames.py: what a data frame says with numpy is said with plain values."""

import numpy as np
import pandas as pd
import pytest

from tests.data.sources.row_files import CHATS
from tunebook.data.sources import read_rows


def test_missing_values_of_a_frame_are_none_and_its_arrays_are_lists(tmp_path):
    frame = pd.DataFrame(
        {
            "text": ["a", None, np.nan],
            "number": [1, 2, 3],
            "score": [0.5, np.nan, 1.5],
            "count": pd.array([1, None, 3], dtype="Int64"),
            "day": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
        }
    )
    rows = read_rows(frame)
    assert rows[1] == {"text": None, "number": 2, "score": None, "count": None, "day": None}
    assert type(rows[0]["number"]) is int
    pd.DataFrame(CHATS).to_parquet(tmp_path / "chats.parquet")
    assert pd.read_parquet(tmp_path / "chats.parquet")["messages"][0].__class__ is np.ndarray
    assert read_rows(pd.read_parquet(tmp_path / "chats.parquet"))[3]["messages"] == [
        {"role": "user", "content": "hello 3", "tool": None},
        {"role": "assistant", "content": "bye", "tool": None},
    ]


@pytest.mark.parametrize(
    ("columns", "said"), [(["a", "a"], "'a' of train_dataset occurs twice"), (["a", 1], "1 of .* is a int")]
)
def test_a_frame_whose_columns_cannot_be_keys_is_refused(columns, said):
    with pytest.raises(ValueError, match=f"column {said}.* Rename"):
        read_rows(pd.DataFrame([[1, 2]], columns=columns))
