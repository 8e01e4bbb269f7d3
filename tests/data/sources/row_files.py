"""Rows, and the files that other libraries write of them: each quotes, escapes and encodes as it sees fit."""

import csv
import json
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

ROWS = [{"text": f"row {number % 8}"} for number in range(20)]  # each text occurs two or three times
PAIRS = [{"prompt": f'say "{number}", ünïcode', "completion": f"{number}\n\u2028 twice"} for number in range(25)]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"hello {number}"},
            {"role": "assistant", "content": "bye", "tool": None},
        ]
    }
    for number in range(25)
]

# Written by pandas, pyarrow and datasets, each of which quotes, escapes and encodes as it sees fit.
WRITERS = {
    "array.json": lambda path: pd.DataFrame(PAIRS).to_json(path, orient="records", indent=2),
    "lines.json": lambda path: pd.DataFrame(PAIRS).to_json(path, orient="records", lines=True),
    "lines.jsonl": lambda path: pd.DataFrame(PAIRS).to_json(path, orient="records", lines=True, force_ascii=False),
    "datasets.jsonl": lambda path: datasets.Dataset.from_list(PAIRS).to_json(path),
    "rows.csv": lambda path: pd.DataFrame(PAIRS).to_csv(path, index=False),
    "bom.csv": lambda path: pd.DataFrame(PAIRS).to_csv(path, index=False, encoding="utf-8-sig"),
    "quoted.CSV": lambda path: pd.DataFrame(PAIRS).to_csv(
        path, index=False, quoting=csv.QUOTE_ALL, lineterminator="\r\n"
    ),
    "groups.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(PAIRS), path, row_group_size=7),
    "datasets.parquet": lambda path: datasets.Dataset.from_list(PAIRS).to_parquet(path),
    "saved": lambda path: datasets.Dataset.from_list(PAIRS).save_to_disk(path),
    "saved_splits": lambda path: datasets.DatasetDict(train=datasets.Dataset.from_list(PAIRS)).save_to_disk(path),
}


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def lines_of(*texts: str) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)
