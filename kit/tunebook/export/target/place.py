"""The folder a person gives for an export: which may not be one, and how the files come into it.

An export adds its files. It replaces the last export of its own form there, all of it or nothing of it, and leaves
everything else as it is, byte for byte; what is in the way and not ours is an error that names it.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from ...machine import runtime
from ...machine.atomic import added_files
from ...models.loaded import Loaded
from ...runs.folder import EVENTS_FILE
from ...train.kept.checkpoint import FOLDER as CHECKPOINTS
from ...train.kept.checkpoint import STATE, WEIGHTS, checkpoint_folders
from .earlier import CARD
from .own_files import Form, Standing


@dataclass(frozen=True, kw_only=True)
class ExportDraft:
    """Where an export is written before it is added to its folder."""

    folder: Path  # the folder it is for, in full
    new: Path  # an empty folder for its files
    aside: Path  # an empty folder for what is needed on the way
    notes: list[str]  # once it is added: sentences on what was not


@contextmanager
def adding(
    folder: Path | str, form: Form, loaded: Loaded, *, names: Sequence[str] = (), card: str | None = None
) -> Iterator[ExportDraft]:
    """Yield a draft whose files are added to `folder` when the block ends, together or not at all.

    `names` are files known to be written; `card` becomes README.md, unless somebody else's stands there. Raises
    ValueError for a folder that is in use as something else, NotADirectoryError for a file, PermissionError for what
    cannot be written to, FileExistsError for what is in the way, before anything is written where that can be known.
    """
    folder = place_of(folder)
    _check_is_free(folder, loaded)
    notes: list[str] = []
    with added_files(folder, lambda new: standing.changes(new, notes)) as draft:

        def again(name: str) -> Iterable[Path]:
            """What the export copies from the base model, and what its tokenizer and its processor save."""
            yield loaded.folder / name
            saved = draft.aside / "tokenizer"
            if not saved.exists():
                loaded.tokenizer.save_pretrained(str(saved))
                if loaded.family.processor is not None:
                    loaded.family.processor.save_pretrained(str(draft.aside / "processor"))
            yield saved / name
            yield draft.aside / "processor" / name

        standing = Standing(folder, form, again)
        standing.check(names)
        if card is not None:
            (draft.new / CARD).write_text(card, encoding="utf-8")
        yield ExportDraft(folder=folder, new=draft.new, aside=draft.aside, notes=notes)


def place_of(folder: Path | str) -> Path:
    """The folder in full, links followed. Raises NotADirectoryError, PermissionError or OSError for what is none."""
    try:
        place = Path(folder).expanduser().resolve()
    except RuntimeError as error:  # a home that is not known, links that go round in a circle
        raise OSError(f"{folder} leads nowhere ({error}); choose another folder.") from error
    existing = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing} is no folder, so nothing can be saved in it; choose another one.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{existing} cannot be written to; choose another folder, or change its permissions.")
    return place


def _check_is_free(folder: Path, loaded: Loaded) -> None:
    """Raise ValueError for a folder that is in use: the base model's, a run's, a cache's."""
    next_move = "so no export goes there; choose another folder."
    if folder.is_dir() and loaded.folder.is_dir() and folder.samefile(loaded.folder):
        raise ValueError(f"{folder} is the folder the base model was loaded from, {next_move}")
    for run in (folder, *folder.parents[:2]):
        is_inside = folder.relative_to(run).parts[:1] in ((), (CHECKPOINTS,))
        if is_inside and ((run / EVENTS_FILE).is_file() or checkpoint_folders(run)):
            raise ValueError(f"{folder} belongs to the training run in {run}, {next_move}")
    if (folder / STATE).is_file() and (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} is a checkpoint of a training run, {next_move}")
    caches = {"the Hugging Face cache": Path(constants.HF_HUB_CACHE), "tunebook's cache": runtime.cache_folder()}
    for name, cache in caches.items():
        if folder.is_relative_to(cache.resolve()):
            raise ValueError(f"{folder} is in {name} ({cache}), {next_move}")
