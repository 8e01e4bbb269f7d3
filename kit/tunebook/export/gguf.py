"""GGUF files of a tuned model, for llama.cpp, Ollama and LM Studio.

The adapters are merged once into a scratch folder beside the target, which `tunebook.gguf` then writes in each
requested type; the scratch folder is gone afterwards.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..feasibility import check_gguf
from ..gguf import WrittenGguf, check_quantizations, write_gguf
from ..loader import Loaded
from .merged import save_merged


def save_gguf(loaded: Loaded, folder: Path | str, quantizations: Sequence[str]) -> list[WrittenGguf]:
    """Write `folder/NAME.TYPE.gguf` for each type, e.g. `smollm2-135m-instruct.q8_0.gguf`.

    A quantized base is opened up in the merge, and gives what it computes with now. Raises UnsupportedArchitecture,
    ValueError or ModuleNotFoundError before anything is merged when a model, a tokenizer or a type has no rule here,
    and ValueError for a model that reads images.
    """
    check_quantizations(quantizations)
    check_gguf(loaded)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = name_of(loaded)
    written = []
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=folder) as scratch:
        # In the type the model computes in, so that each number is rounded once, to the type that was asked for.
        merged = save_merged(loaded, Path(scratch) / "merged", dtype=loaded.dtype)
        for kind in quantizations:
            path = folder / f"{name.lower()}.{kind}.gguf"
            written.append(write_gguf(merged, path, kind, name=name))
    return written


def name_of(loaded: Loaded) -> str:
    """The model's name without its owner or folder."""
    return loaded.name.rstrip("/").rpartition("/")[2].removesuffix(".gguf")


def notes_on(written: WrittenGguf) -> tuple[str, ...]:
    """What a file could not say or could not hold as asked, in sentences."""
    return (*written.notices, *(_on_fallbacks(written, kind) for kind in dict.fromkeys(written.fallbacks.values())))


def _on_fallbacks(written: WrittenGguf, kind: str) -> str:
    names = [name for name, stored in written.fallbacks.items() if stored == kind]
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} tensors are stored as {kind}, for their rows do not divide into blocks: {listed}."
