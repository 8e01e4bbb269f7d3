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

    Raises UnsupportedArchitecture or ValueError before anything is merged when a model or a type has no rule.
    """
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
    return (*written.notices, *(_on_fallbacks(written, kind) for kind in dict.fromkeys(written.fallbacks.values())))


def _on_fallbacks(written: WrittenGguf, kind: str) -> str:
    names = [name for name, stored in written.fallbacks.items() if stored == kind]
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} tensors are stored as {kind}, for their rows do not divide into blocks: {listed}."
