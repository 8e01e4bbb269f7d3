"""What in a folder is ours: `tunebook.json` lists what exports wrote to it, with the form of each and its digest.

A file that is not on the list, or that was changed since, is somebody else's and never replaced or removed. Exports
from before there were lists are told by what they hold (`earlier.py`). Nothing is written here; `place.py` does.
"""

import fnmatch
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from ...machine.atomic import Changes, names_in
from ...machine.scratch import digest
from .earlier import CARD, earlier_export

Form = Literal["lora", "peft", "merged", "gguf", "lora_gguf"]

LIST = "tunebook.json"

LICENCES = ("licen[cs]e*", "copying*", "notice*", "use_policy*")  # in any case of letters

# What a folder with an export of this form holds no other of: programs would open that one, or both together. A form
# without any stands in a folder side by side with others of its own, as GGUF files do; others replace theirs whole.
_ADAPTERS = ("adapter_config.json", "adapters.safetensors", "adapter_model*")
_ALONE: dict[Form, tuple[str, ...]] = {
    "lora": _ADAPTERS,
    "peft": _ADAPTERS,
    "merged": ("config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*", "adapter_config.json"),
    "gguf": (),
    "lora_gguf": (),
}
_WHOLE = tuple(form for form, alone in _ALONE.items() if alone)


def exported_files(folder: Path) -> list[Path]:
    """The files of the adapters or the model that were exported to `folder`; all files of any other folder."""
    try:
        listed = _listed(folder)
    except FileExistsError:
        listed = {}
    ours = [folder / name for name, entry in listed.items() if entry["form"] in _WHOLE and (folder / name).is_file()]
    return ours or [path for path in folder.rglob("*") if path.is_file()]


class Standing:
    """What stands in a folder, as an export of one form sees it.

    `again(name)` gives files of that name whose content can be had again, so that nothing is lost with a copy of it.
    """

    def __init__(self, folder: Path, form: Form, again: Callable[[str], Iterable[Path]]):
        self._folder, self._again = folder, again
        self._form: Form = form
        self._digests: dict[tuple[str, int, int, int], str | None] = {}

    def check(self, names: Sequence[str]) -> None:
        """Raise FileExistsError when something that is not ours is in the way of an export that writes `names`."""
        listed = self._listed()
        there = sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []
        alone = [name for name in there if any(fnmatch.fnmatch(name.lower(), kind) for kind in _ALONE[self._form])]
        in_the_way = [name for name in alone if not self._is_ours(name, listed) or listed[name]["form"] != self._form]
        if self._form in ("lora", "peft") and "config.json" in there:
            in_the_way += fnmatch.filter(there, "model*.safetensors")
        writes = [name for name in names if name not in alone and not _gives_way(name)]
        in_the_way += [name for name in writes if not self._may_replace(name, listed)]
        if in_the_way:
            raise FileExistsError(self._refusal(in_the_way, listed))

    def changes(self, new: Path, notes: list[str]) -> Changes:
        """What adding the files in `new` replaces and removes; raises as `check`.

        A card or a licence is taken out of `new` where somebody else's stands, with a note; the new list is put in.
        """
        listed = self._listed()
        for name in names_in(new):
            if _gives_way(name) and not self._may_replace(name, listed):
                (new / name).unlink()
                what = "is not a card of ours" if name == CARD else "is not ours"
                notes.append(f"{name} in {self._folder} {what} and was left as it was.")
        names = names_in(new)
        self.check(names)
        with ThreadPoolExecutor() as pool:  # hashing lets go of Python's lock
            written = dict(zip(names, pool.map(lambda name: digest(new / name), names), strict=True))
        gone = {
            name: entry["sha256"]
            for name, entry in listed.items()
            if entry["form"] == self._form and self._form in _WHOLE and name not in written
            if self._is_ours(name, listed)
        }
        kept = {
            name: entry for name, entry in listed.items() if name not in gone and os.path.lexists(self._folder / name)
        }
        files = kept | {name: {"form": self._form, "sha256": digest} for name, digest in written.items()}
        document = {"what": "files written by tunebook", "files": dict(sorted(files.items()))}
        (new / LIST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return Changes(replaces={name: self._digest(name) for name in [*names, LIST]}, removes=gone)

    def _listed(self) -> dict[str, Any]:
        """As `_listed`; without a list, what an export from before there were lists has left."""
        if os.path.lexists(self._folder / LIST) or not self._folder.is_dir():
            return _listed(self._folder)
        found = {
            name: {"form": form, "sha256": self._digest(name)} for name, form in earlier_export(self._folder).items()
        }
        return {name: entry for name, entry in found.items() if entry["sha256"] is not None}

    def _may_replace(self, name: str, listed: dict[str, Any]) -> bool:
        """Whether nothing stands at `name`, or nothing that would be lost."""
        if not os.path.lexists(self._folder / name) or self._is_ours(name, listed):
            return True
        found = self._digest(name)
        return found is not None and any(digest(path) == found for path in self._again(name))

    def _is_ours(self, name: str, listed: dict[str, Any]) -> bool:
        return name in listed and self._digest(name) == listed[name]["sha256"]

    def _digest(self, name: str) -> str | None:
        """The sha256 of a file that stands there; one that nobody touched since is not read again."""
        path = self._folder / name
        if path.is_symlink() or not path.is_file():
            return None
        state = path.stat()
        key = (name, state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = digest(path)
        return self._digests[key]

    def _refusal(self, names: list[str], listed: dict[str, Any]) -> str:
        forms = sorted({listed[name]["form"] for name in names if self._is_ours(name, listed)})
        what = f"an export of another form ({', '.join(forms)})" if forms else "not tunebook's, or changed since"
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return (
            f"{self._folder} holds {shown}, {what}, which this export ({self._form}) would replace or be mixed up "
            f"with. Choose another folder, e.g. {self._folder}-{self._form}, or move that away first."
        )


def _gives_way(name: str) -> bool:
    """Whether a file is left out of an export rather than stand in the way of one: a card, a licence."""
    return name == CARD or any(fnmatch.fnmatchcase(name.lower(), kind) for kind in LICENCES)


def _listed(folder: Path) -> dict[str, Any]:
    """name -> {"form", "sha256"} of what we wrote to `folder`. Raises FileExistsError for a list that is not ours."""
    path = folder / LIST
    if not os.path.lexists(path):
        return {}
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        is_ours = all(isinstance(entry[key], str) for entry in files.values() for key in ("form", "sha256"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        is_ours, files = False, {}
    if not is_ours or path.is_symlink():
        raise FileExistsError(
            f"{path} is not the list of what tunebook exported to that folder. Choose another folder, or move it away."
        )
    return files
