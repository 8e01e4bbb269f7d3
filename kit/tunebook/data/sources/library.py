"""What the `datasets` library opens: a hub id, or a folder it wrote -> one of its data sets.

Its own cache is used and filled. Of several splits none is chosen here: the error names them. Images stay undecoded:
the library opens a file with any decoder it finds. Importing this file imports the library, which takes a second;
nothing imports it before it is needed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, final

import datasets
from datasets import config
from datasets.exceptions import DatasetsError
from huggingface_hub.constants import HF_HUB_CACHE

from ...machine.hub import why_silent
from ..reach import ANYWHERE, Reach
from .rows import Indexed, Row, Rows

# Builders whose rows a person made, or whose paths of images the library found itself rather than read in a row.
MADE_HERE = ("generator", "imagefolder")


def from_hub(name: str) -> Rows:
    """The data set `owner/name` or `owner/name:split` of the Hugging Face hub.

    Raises FileNotFoundError when the hub has or gives none, ValueError when a split or a configuration is to choose.
    """
    repository, _, split = name.partition(":")
    try:
        with _offline_if_nobody_answers():
            found = datasets.load_dataset(repository, split=split or None)
    except (ConnectionError, DatasetsError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"There is no path {name}, and the hub gave no data set {repository} ({_one_line(error)}). Check the "
            "spelling and the connection, or pass a local file or folder."
        ) from error
    except RuntimeError as error:  # its rows are made by a script, which `datasets` does not run
        raise ValueError(
            f"The hub's data set {name} cannot be opened ({_one_line(error)}). Pass a set that is stored as files."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"The hub's data set {name} cannot be opened ({_one_line(error)}). Name a split as "
            f"'{repository}:train', or pass datasets.load_dataset({repository!r}, ...) with what it asks for."
        ) from error
    chosen = only_split(found, repository, lambda split: f"'{repository}:{split}'")
    return Indexed(undecoded(chosen), name, where_from(chosen))


def from_saved(folder: Path) -> Rows:
    """A folder `save_to_disk` wrote, opened where it lies. Raises ValueError for a damaged one and several splits."""
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} looks like a folder of datasets.save_to_disk, but cannot be opened "
            f"({type(error).__name__}: {_one_line(error)}). Save or copy it again."
        ) from error
    chosen = only_split(found, str(folder), lambda split: repr(str(folder / split)))
    return Indexed(undecoded(chosen), str(folder))


def undecoded(rows: datasets.Dataset) -> Any:
    """`rows` with the bytes or the path of each image in its place; those without images as they are."""
    chosen = rows.format
    return _Undecoded(rows) if chosen["type"] is None and _is_decoded(rows.features) else rows


def undecoded_stream(rows: datasets.IterableDataset) -> datasets.IterableDataset:
    """As `undecoded`, of a stream; one whose columns are not known decodes none."""
    return rows.decode(False) if rows.features is not None and _is_decoded(rows.features) else rows


def where_from(rows: datasets.Dataset | datasets.IterableDataset) -> Reach:
    """Which files a data set may name as images: one that was built from rows, any; one that was loaded, its own."""
    if rows.info.builder_name in MADE_HERE:
        return ANYWHERE
    if isinstance(rows, datasets.IterableDataset):
        return ANYWHERE if rows.info.builder_name is None else Reach(within=())
    places = {Path(file["filename"]).parent for file in rows.cache_files}
    places.discard(Path(datasets.fingerprint.get_temporary_cache_files_directory()))  # of rows a person made, mapped
    return Reach(within=tuple(sorted(map(_home, places)))) if places else ANYWHERE


def _home(place: Path) -> Path:
    """Where the files of a data set are whose tables are in `place`: there, or where the hub's client has put them."""
    cache = Path(config.HF_DATASETS_CACHE)
    if not place.is_relative_to(cache):
        return place
    owner, _, name = place.relative_to(cache).parts[0].rpartition("___")  # as `datasets.DatasetBuilder` names it
    return Path(HF_HUB_CACHE) / f"datasets--{owner}--{name}" if owner else place


@final
class _Undecoded:
    """Rows of a data set as its tables hold them."""

    def __init__(self, rows: datasets.Dataset):
        self._tables: Any = rows.with_format("arrow", columns=rows.format["columns"])

    def __len__(self):
        return len(self._tables)

    def __getitem__(self, index: int) -> Row:
        return self._tables[index].to_pylist()[0]


def _is_decoded(feature: Any) -> bool:
    if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
        return True
    if isinstance(feature, dict):
        return any(map(_is_decoded, feature.values()))
    if isinstance(feature, list | tuple):
        return any(map(_is_decoded, feature))
    return is_dataclass(feature) and _is_decoded(vars(feature).get("feature"))  # a list of some kind


def only_split(found: Any, name: str, pick: Callable[[str], str]) -> Any:
    """A data set as it is; of a dict of splits the only one. `pick` writes how one is asked for.

    Raises ValueError when there are several splits, or none.
    """
    if not isinstance(found, dict):
        return found
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise ValueError(f"{name} holds no split; there is nothing to read.")
    first = "train" if "train" in found else next(iter(found))
    raise ValueError(f"{name} holds {len(found)} splits: {', '.join(found)}. Pass one of them, such as {pick(first)}.")


@contextmanager
def _offline_if_nobody_answers() -> Iterator[None]:
    """Set the library's own switch, so that it looks into its cache at once; it would try for half a minute first."""
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or why_silent() is not None
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
