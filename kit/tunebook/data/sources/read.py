"""`read_rows`: whatever people hold, opened as a sequence of rows and checked.

The kind of a source is decided once, here. Rows stay where they are: a file is indexed and a `datasets.Dataset` is read
by index; a list, a frame, and an iterable without an index are in memory as a whole.
"""

import os
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..reach import Reach
from .frames import frame_rows
from .paths import has_data_suffix, missing_path, read_path
from .places import Broken, broken_lines, row_number
from .rows import Indexed, Picked, Row, Rows, Source
from .shape import check_row

# owner/name of the hub, with a split of `datasets` such as train or train[:100] behind a colon.
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:.+)?")


def read_rows(
    source: Source,
    name: str = "train_dataset",
    *,
    image_base_dir: str | os.PathLike[str] | None = None,
    skip_bad_rows: bool = False,
) -> Sequence[Row]:
    """The rows of a path, a hub id, a list of dicts, a pandas frame, a `datasets` object or any iterable of dicts.

        >>> rows = read_rows("train.jsonl")

    The `source` decides what is done. A path is a .json, .jsonl, .csv or .parquet file, a folder of such, or one
    `datasets.save_to_disk` wrote. An id is "owner/name" or "owner/name:split"; an existing path of that name comes
    first. `name` is what errors call the rows of an object. Rows are as the source has them: Arrow (parquet,
    `datasets`) gives every nested dict all keys of its column, None where a row has none.

    In a row of `datasets` an image is undecoded: its bytes or its path. Rows that are loaded from a file or the hub
    may name images below the folder they came from; `image_base_dir` is the folder they are below instead.

    Lines of a file and items of a list that are no rows are all named in one error; with `skip_bad_rows` they are left
    out, and listed as `broken` of what is returned.

    Raises FileNotFoundError for a path or id that is not there, TypeError for a row that is no mapping, and ValueError
    for a row nested too deep, for a file that cannot be read (file, line and column), for several splits, and when
    there are no rows.
    """
    if image_base_dir is not None and not os.path.isdir(image_base_dir):
        raise ValueError(f"image_base_dir is {os.fspath(image_base_dir)!r}, which is no folder here.")
    rows = _open(source, name, skip_bad_rows=skip_bad_rows)
    if isinstance(rows, Rows) and rows.broken and rows is not source and not (skip_bad_rows and rows):
        raise broken_lines(rows.origin, rows.broken, len(rows))
    if not rows:
        raise ValueError(f"{name} is empty; there is nothing to train on or to measure.")
    return rows if image_base_dir is None else _with_images_in(rows, Path(image_base_dir))


def _with_images_in(rows: Sequence[Row], folder: Path) -> Rows:
    made = Picked(rows if isinstance(rows, Rows) else Indexed(rows, "rows"), range(len(rows)))
    made.reach = Reach(folder=folder)
    return made


def _open(source: Any, name: str, *, skip_bad_rows: bool) -> Sequence[Row]:
    if isinstance(source, Rows):
        return source
    if isinstance(source, str):
        return _read_text(source, name)
    if isinstance(source, os.PathLike):
        return read_path(_existing(Path(source).expanduser()))
    if is_of(source, "pandas", "DataFrame"):
        return frame_rows(source, name)
    if is_of(source, "datasets", "DatasetDict", "IterableDatasetDict"):
        from .library import only_split

        source = only_split(source, name, lambda split: f"{name}=splits[{split!r}]")
    if is_of(source, "datasets", "Dataset"):
        from .library import undecoded, where_from

        rows = undecoded(source)
        if len(rows):
            check_row(rows[0], 0, name)  # a format such as "pandas" makes something else of every row
        return Indexed(rows, name, where_from(source))
    if isinstance(source, bytes | Mapping) or not isinstance(source, Iterable):
        raise TypeError(
            f"{name} is a {type(source).__name__}; pass a list of rows, each a dict such as {{'messages': ...}}, a "
            "path or a hub id."
        )
    if isinstance(source, Sequence) and not isinstance(source, list | tuple):
        checked = _checked(source, name, skip_bad_rows=skip_bad_rows)
        # Of a kind we do not know, and perhaps larger than memory.
        return checked if isinstance(checked, Rows) else Indexed(source, name)
    return _checked(list(source), name, skip_bad_rows=skip_bad_rows)


def is_of(source: Any, library: str, *kinds: str) -> bool:
    """Whether this is an object of a library, which is then imported already; so it is not imported to find out."""
    names = vars(sys.modules[library]) if library in sys.modules else {}
    # A user's own module may have the library's name, and none of its classes.
    return isinstance(source, tuple(names[kind] for kind in kinds if kind in names))


def _checked(rows: Sequence[Any], name: str, *, skip_bad_rows: bool) -> Sequence[Row]:
    """`rows`, or those of them that are rows. Raises as `check_row` does, once for all of them."""
    wrong: dict[int, TypeError | ValueError] = {}
    for index, row in enumerate(rows):
        try:
            check_row(row, index, name)
        except (TypeError, ValueError) as error:
            wrong[index] = error
    if not wrong:
        return rows
    broken = [
        Broken(
            row_number(index),
            f"it {str(error).removeprefix(f'Row {index} of {name} ').rstrip('.')}",
            reprlib.repr(rows[index]),
        )
        for index, error in wrong.items()
    ]
    if skip_bad_rows and len(wrong) < len(rows):
        good = Picked(Indexed(rows, name), [index for index in range(len(rows)) if index not in wrong])
        good.broken = broken
        return good
    first = next(iter(wrong.values()))
    raise first if len(wrong) == 1 else type(first)(str(broken_lines(name, broken, len(rows) - len(wrong))))


def _read_text(source: str, name: str) -> Rows:
    """The rows of a path or hub id given as a string."""
    if not source:
        raise ValueError(f"{name} is an empty string; pass a path, a hub id or rows.")
    if "://" in source:
        raise ValueError(f"{source} is an address; download the file and pass its path, or give a hub id: owner/name.")
    path = Path(source).expanduser()
    if os.path.exists(path) or not HUB_ID.fullmatch(source) or source[0] in "./~" or has_data_suffix(path):
        return read_path(_existing(path))
    from .library import from_hub  # imports `datasets`

    return from_hub(source)


def _existing(path: Path) -> Path:
    if not os.path.exists(path):  # unlike Path.exists, it takes a name of any length
        raise missing_path(path)
    return path
