"""Whether a loaded model can become a GGUF at all: asked before a run, and again before an export begins any work."""

from typing import Any

from ...gguf import check_architecture, check_tokenizer
from ...gguf.adapter import EMBEDDING
from ...models.adapters import adapter_paths, trained_whole
from ...models.loaded import Loaded


def check_gguf(loaded: Loaded) -> None:
    """Raise ValueError, or UnsupportedArchitecture, with the reason why no .gguf of this model can be written.

    Nothing is read but config and tokenizer: milliseconds, and of a vocabulary of 262,144 with scores about a second
    the first time.
    """
    if loaded.family.placeholder is not None:
        raise ValueError(
            "llama.cpp wants what reads images in a second file (mmproj), which is not written here. Use "
            "save_pretrained_merged or save_pretrained."
        )
    check_architecture(loaded.config)
    check_tokenizer(loaded.tokenizer, loaded.folder)


def check_gguf_adapter(loaded: Loaded) -> None:
    """Raise ValueError with the reasons why its adapters alone, low-rank factors and no more, cannot be a .gguf."""
    adapted = adapter_paths(loaded.module)
    if not adapted:
        return
    layers: dict[str, Any] = dict(loaded.module.named_modules())
    reasons = []
    if any("m" in layers[path] for path in adapted):
        reasons.append("it has no place for the magnitudes of DoRA")
    if whole := trained_whole(loaded.module):
        reasons.append(f"modules_to_save trained {len(whole)} tensors whole ({whole[0]})")
    if EMBEDDING in adapted and "lm_head" not in layers:
        reasons.append("one on a tied embedding changes the head too, and llama.cpp applies it to the embedding alone")
    if reasons:
        raise ValueError(
            f"These adapters cannot be a GGUF adapter: {'; '.join(reasons)}. Use save_pretrained_gguf, which merges "
            "them, or another format."
        )


def gguf_notice(loaded: Loaded) -> list[str]:
    """A sentence where there can be no GGUF, so that it is known before the training and not after it."""
    try:
        check_gguf(loaded)
    except ValueError as error:
        return [f"GGUF export: not possible for this model: {error} LoRA and merged exports are."]
    try:
        check_gguf_adapter(loaded)
    except ValueError as error:
        return [f"GGUF export: {error}"]
    return []
