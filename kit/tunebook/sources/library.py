"""What the `datasets` library opens: a hub id, or a folder it wrote -> one of its data sets.

Its own cache is used and filled. Of several splits none is chosen here: the error names them. Importing this file
imports the library, which takes a second; nothing imports it before it is needed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import config
from datasets.exceptions import DatasetsError

from ..hub import why_silent
from .rows import Indexed, Rows


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
    return Indexed(only_split(found, repository, lambda split: f"'{repository}:{split}'"), name)


def from_saved(folder: Path) -> Rows:
    """A folder `save_to_disk` wrote, opened where it lies. Raises ValueError for a damaged one and several splits."""
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} looks like a folder of datasets.save_to_disk, but cannot be opened "
            f"({type(error).__name__}: {_one_line(error)}). Save or copy it again."
        ) from error
    return Indexed(only_split(found, str(folder), lambda split: repr(str(folder / split))), str(folder))


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
