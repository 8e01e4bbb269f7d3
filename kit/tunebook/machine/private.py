"""Files and folders that their owner alone can read, whatever the umask: they hold a person's rows, or what was made of
them.

They appear whole or not at all, as `atomic` has it. Only what is made here gets these modes; a folder that was there
before keeps its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .atomic import new_file, new_folder

FOLDER_MODE, FILE_MODE = 0o700, 0o600


@contextmanager
def new_private_folder(path: Path) -> Iterator[Path]:
    """`atomic.new_folder`, for its owner alone; so is the folder it is put in, where that is not there yet."""
    make_private_folder(path.parent)
    with new_folder(path) as partial:  # below a scratch folder of the same mode
        yield partial
        close(partial)


@contextmanager
def new_private_file(path: Path) -> Iterator[Path]:
    """`atomic.new_file`, for its owner alone."""
    with new_file(path) as partial:
        yield partial
        partial.chmod(FILE_MODE)


def make_private_folder(path: Path) -> bool:
    """Make `path` where it is not there, for its owner alone, and what leads to it as usual; whether it was made."""
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return make_private_folder(path)
    path.chmod(FOLDER_MODE)  # a umask may have taken more than was asked for
    return True


def close(folder: Path) -> None:
    """Take `folder` and all that is in it from everybody but its owner."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
