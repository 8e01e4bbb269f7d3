"""GGUF files of a tuned model, for llama.cpp, Ollama and LM Studio.

The adapters are merged once into a folder on the way, which `tunebook.gguf` then writes in each requested type.
"""

import re
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from ...gguf import WrittenGguf, check_quantizations, write_gguf
from ...models.loaded import Loaded
from ..merged import save_merged
from .feasibility import check_gguf

_LONGEST_NAME = 60  # letters, of up to four bytes; a file system takes names of 255 bytes


def save_gguf(loaded: Loaded, folder: Path | str, quantizations: Sequence[str], aside: Path) -> list[WrittenGguf]:
    """Write `folder/NAME.TYPE.gguf` for each type, e.g. `smollm2-135m-instruct.q8_0.gguf`; merge into `aside/merged`.

    That is gone afterwards. A quantized base is opened up in the merge, and gives what it computes with now. Raises
    UnsupportedArchitecture, ValueError or ModuleNotFoundError before anything is merged when a model, a tokenizer or a
    type has no rule here, and ValueError for a model that reads images.
    """
    check_quantizations(quantizations)
    check_gguf(loaded)
    # In the type the model computes in, so that each number is rounded once, to the type that was asked for.
    merged = save_merged(loaded, aside / "merged", dtype=loaded.dtype)
    names = gguf_names(loaded, quantizations)
    pairs = zip(quantizations, names, strict=True)
    written = [write_gguf(merged, Path(folder) / name, kind, name=name_of(loaded)) for kind, name in pairs]
    shutil.rmtree(merged)
    return written


def gguf_names(loaded: Loaded, kinds: Sequence[str]) -> list[str]:
    """The names of such files, of letters, digits and `._-`, for they stand in commands and Modelfiles too."""
    plain = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", name_of(loaded).lower()))
    stem = plain.strip("-.")[:_LONGEST_NAME] or "model"
    return [f"{stem}.{kind}.gguf" for kind in kinds]


def name_of(loaded: Loaded) -> str:
    """The model's name without its owner or folder, in a line."""
    name = loaded.name.rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    return "".join(letter if letter.isprintable() else " " for letter in name).strip() or "model"


def notes_on(written: WrittenGguf) -> tuple[str, ...]:
    """What a file could not say or could not hold as asked, in sentences."""
    return (*written.notices, *(_on_fallbacks(written, kind) for kind in dict.fromkeys(written.fallbacks.values())))


def _on_fallbacks(written: WrittenGguf, kind: str) -> str:
    names = [name for name, stored in written.fallbacks.items() if stored == kind]
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} tensors are stored as {kind}, for their rows do not divide into blocks: {listed}."
