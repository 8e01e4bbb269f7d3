"""A path -> the rows of the file or folder behind it; the suffix says how a file is read.

A folder is one `datasets` wrote, or holds data files: those in `parquet-files/` if it has such a folder, else its own,
in natural order (part-2 before part-10). Hidden files are skipped and sub-folders are not searched. Files of several
formats or of several splits are refused: neither is chosen or mixed here.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from ..reach import Reach
from .csv_files import read_csv
from .json_files import read_json
from .rows import Joined, Rows

PARQUET_FOLDER = "parquet-files"
# The words datasets are split by, as they occur in file names; any other file counts as one to train on.
SPLIT_WORDS = {
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
}


def read_path(path: Path) -> Rows:
    """The rows of an existing file or folder, whose images lie below it, or beside the file.

    Raises ValueError with the file, and the line, that cannot be read.
    """
    rows = _read(path)
    rows.reach = Reach(within=(path if path.is_dir() else path.parent,))
    return rows


def missing_path(path: Path) -> FileNotFoundError:
    """The error for a path that is not there: what is there instead."""
    folder = path.absolute().parent
    while not os.path.isdir(folder):  # unlike Path.is_dir, it takes a name of any length
        path, folder = folder, folder.parent
    close = get_close_matches(path.name, sorted(entry.name for entry in folder.iterdir()), n=3)
    like = f"did you mean {' or '.join(close)}?" if close else "check the path, or give a hub id: owner/name."
    # No name of a file is longer than 255 bytes; this is a text somebody took for a source.
    name = path.name if len(path.name) <= 255 else path.name[:60] + "..."
    return FileNotFoundError(f"There is no {name!r} in {folder}; {like}")


def has_data_suffix(path: Path) -> bool:
    """Whether the name is one of a file that can be read here."""
    return path.suffix.lower() in READERS


def _read_parquet(path: Path) -> Rows:
    from .parquet_files import read_parquet  # imports `pyarrow`

    return read_parquet(path)


READERS: dict[str, Callable[[Path], Rows]] = {
    ".parquet": _read_parquet,
    ".json": read_json,
    ".jsonl": read_json,
    ".csv": read_csv,
}


def _read(path: Path) -> Rows:
    if path.is_dir():
        if _saved_by_datasets(path):
            from .library import from_saved  # imports `datasets`

            return _not_empty(from_saved(path))
        return _read_folder(path / PARQUET_FOLDER if (path / PARQUET_FOLDER).is_dir() else path)
    return _read_file(path)


def _read_file(path: Path) -> Rows:
    if not has_data_suffix(path):
        ending = f"ends in {path.suffix}" if path.suffix else "has no suffix"
        raise ValueError(
            f"{path} {ending}; {', '.join(READERS)} can be read. Convert it, or load it with the library it is for and "
            "pass the rows."
        )
    try:
        return _not_empty(READERS[path.suffix.lower()](path))
    except OSError as error:  # no permission, a socket, a disk that does not answer
        raise ValueError(
            f"{path} cannot be read: {error.strerror or error}. Copy it to where you may read it, and pass the copy."
        ) from error


def _not_empty(rows: Rows) -> Rows:
    if not rows and not rows.broken:
        raise ValueError(f"{rows.origin} holds no rows. Delete it, or give another.")
    return rows


def _read_folder(folder: Path) -> Rows:
    files = [path for path in folder.iterdir() if _is_data(path)]
    if not files:
        visible = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        within = [path for path in visible if any(_is_data(inside) for inside in path.iterdir())]
        move = f"Pass {within[0]}, which does." if within else "Check the path."
        raise ValueError(f"{folder} holds no {', '.join(READERS)} file. {move}")
    files.sort(key=lambda path: _natural(path.name))
    _check_alike(files, folder, "formats", lambda path: path.suffix.lower().replace(".jsonl", ".json"))
    _check_alike(files, folder, "splits", _split)
    parts = [_read_file(path) for path in files]
    return parts[0] if len(parts) == 1 else Joined(parts, str(folder))


def _is_data(path: Path) -> bool:
    """Whether this is a file of rows; macOS leaves `._name` beside its files, and a dot hides one anywhere."""
    return has_data_suffix(path) and not path.name.startswith(".") and path.is_file()


def _check_alike(files: list[Path], folder: Path, what: str, kind_of: Callable[[Path], str]) -> None:
    """Raise ValueError when the files are of several kinds."""
    kinds = defaultdict(list)
    for path in files:
        kinds[kind_of(path)].append(path)
    if len(kinds) > 1:
        counts = ", ".join(f"{len(paths)} {kind} ({paths[0].name})" for kind, paths in sorted(kinds.items()))
        raise ValueError(
            f"{folder} mixes several {what}: {counts}. Pass one of the files, or move each of the {what} into a folder "
            "of its own."
        )


def _split(path: Path) -> str:
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "train")


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts the numbers in names by value."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(int(piece), "") if piece[0] in "0123456789" else (-1, piece) for piece in pieces]


def _saved_by_datasets(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder, one data set or several splits."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )
