"""Whether a loaded model can become a GGUF at all: asked before a run, and again before an export begins any work."""

from .gguf import check_architecture, check_tokenizer
from .loader import Loaded


def check_gguf(loaded: Loaded) -> None:
    """Raise ValueError, or UnsupportedArchitecture, with the reason why no .gguf of this model can be written.

    Nothing is read but config and tokenizer: milliseconds, and about a second for a vocabulary of 262,144 with scores.
    """
    if loaded.family.placeholder is not None:
        raise ValueError(
            "llama.cpp wants what reads images in a second file (mmproj), which is not written here. Use "
            "save_pretrained_merged, or load with text_only=True for a .gguf of the language model alone."
        )
    check_architecture(loaded.config)
    check_tokenizer(loaded.tokenizer, loaded.folder)


def gguf_notice(loaded: Loaded) -> list[str]:
    """A sentence where there can be no GGUF, so that it is known before the training and not after it."""
    try:
        check_gguf(loaded)
    except ValueError as error:
        return [f"GGUF export: not possible for this model: {error} LoRA and merged exports are."]
    return []
