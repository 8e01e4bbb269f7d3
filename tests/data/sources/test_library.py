"""data/sources/library.py: data sets of the hub, of a cache and of a folder that `datasets` wrote."""

import time

import datasets
import pyarrow as pa
import pytest
from huggingface_hub import constants
from pyarrow import parquet

from tests.data.sources.row_files import ROWS, WRITERS
from tunebook.data.sources import read_rows


def test_a_hub_id_nobody_answers_for_is_one_sentence_with_the_next_move(monkeypatch):
    """And it comes in seconds: the library by itself would try for half a minute."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port of the discard service
    began = time.monotonic()
    for name in ("owner/not-cached-here", "owner/not-cached-here:train"):
        with pytest.raises(
            FileNotFoundError, match=r"no path owner/not-cached-here.*the hub gave no data set owner/not"
        ) as raised:
            read_rows(name)
        assert "Check the spelling and the connection, or pass a local file or folder." in str(raised.value)
        assert "\n" not in str(raised.value)
    assert time.monotonic() - began < 15
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_hub_id_gives_the_split_behind_its_colon(tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for split in ("train", "test"):
        parquet.write_table(pa.Table.from_pylist([{"text": split}]), folder / f"{split}.parquet")
    # What the library keeps of a hub's data set it has loaded before; without a connection it is read from there.
    datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    (built,) = (folder for folder in (tmp_path / "cache").iterdir() if folder.is_dir())
    built.rename(built.with_name("owner___tiny"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert list(read_rows("owner/tiny:test")) == [{"text": "test"}]
    assert list(read_rows("owner/tiny:train[:100%]")) == [{"text": "train"}]
    with pytest.raises(ValueError, match=r"owner/tiny holds 2 splits: .* Pass one of them, such as 'owner/tiny:train'"):
        read_rows("owner/tiny")
    with pytest.raises(
        ValueError, match=r"data set owner/tiny:dev cannot be opened \(Unknown split .dev.*Name a split"
    ):
        read_rows("owner/tiny:dev")


def test_of_several_splits_none_is_chosen_and_all_are_named(tmp_path):
    both = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS))
    with pytest.raises(
        ValueError, match=r"eval_dataset holds 2 splits: train, test\. .* eval_dataset=splits\['train'\]"
    ):
        read_rows(both, "eval_dataset")
    both.save_to_disk(tmp_path / "both")
    with pytest.raises(ValueError, match=r"both holds 2 splits: train, test\. .* '.*both/train'"):
        read_rows(tmp_path / "both")
    assert list(read_rows(tmp_path / "both" / "test")) == ROWS


@pytest.mark.parametrize(
    "lost", ["data-00000-of-00001.arrow", "half of data-00000-of-00001.arrow", "half of dataset_info.json"]
)
def test_a_damaged_folder_of_datasets_is_named(lost, tmp_path):
    WRITERS["saved"](tmp_path / "saved")
    file = tmp_path / "saved" / lost.removeprefix("half of ")
    content = file.read_bytes()
    file.unlink()
    if lost.startswith("half of "):
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"saved looks like a folder of datasets\.save_to_disk, but .* again"):
        read_rows(tmp_path / "saved")
