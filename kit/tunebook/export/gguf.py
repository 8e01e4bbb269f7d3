"""GGUF files of a tuned model, for llama.cpp, Ollama and LM Studio.

The adapters are merged once into a scratch folder beside the target, which `tunebook.gguf` then writes in each
requested type; the scratch folder is gone afterwards.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..gguf import QUANTIZATIONS, WrittenGguf, check_architecture, write_gguf
from ..loader import Loaded
from .merged import save_merged


def save_gguf(loaded: Loaded, folder: Path | str, quantizations: Sequence[str]) -> list[WrittenGguf]:
    """Write `folder/NAME.TYPE.gguf` for each type, e.g. `smollm2-135m-instruct.q8_0.gguf`.

    Raises UnsupportedArchitecture or ValueError before anything is merged when a model or a type has no rule, and for
    a model that reads images.
    """
    if loaded.family.placeholder is not None:
        raise ValueError(
            "llama.cpp wants what reads images in a second file (mmproj), which is not written here. Use "
            "save_pretrained_merged, or load with text_only=True for a .gguf of the language model alone."
        )
    check_architecture(loaded.config)
    unknown = [kind for kind in quantizations if kind not in QUANTIZATIONS]
    if unknown or not quantizations:
        raise ValueError(
            f"Cannot write GGUF type {', '.join(unknown) or '(none)'}; choose from {', '.join(QUANTIZATIONS)}."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = loaded.name.rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    written = []
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=folder) as scratch:
        # In the type the model computes in, so that each number is rounded once, to the type that was asked for.
        merged = save_merged(loaded, Path(scratch) / "merged", dtype=loaded.dtype)
        for kind in quantizations:
            path = folder / f"{name.lower()}.{kind}.gguf"
            written.append(write_gguf(merged, path, kind, name=name))
    return written


def notes_on(written: WrittenGguf) -> tuple[str, ...]:
    """What a file could not say or could not hold as asked, in sentences."""
    if not written.fallbacks:
        return written.notices
    names = ", ".join(written.fallbacks[:3]) + (", ..." if len(written.fallbacks) > 3 else "")
    rest = f"{len(written.fallbacks)} tensors are stored as f16, for their rows do not divide into blocks: {names}."
    return (*written.notices, rest)
