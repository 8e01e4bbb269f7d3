"""What is particular about each family of mlx-vlm (0.7), as data: nowhere else is a family named.

A family that is not in the table is called like the others, and `check.py` decides whether that is right.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """How one family differs from the rest."""

    # Tokens that must stand around a placeholder; without them positions are one-dimensional, and nobody says so.
    wrapped_in: tuple[str, str] | None = None
    # The tokens of one image attend to one another in both directions (transformers 5, modeling_gemma3).
    sees_images_whole: bool = False
    # Its config, as read, scales images by a width that is not the text's, and takes padding out of the embeddings.
    mends_config: bool = False
    # It takes an image whose values are all 0 for padding, leaves it out, and then misses it (mlx_vlm/models/idefics3).
    zero_is_padding: bool = False
    # Its language model works in the type of its last norm, which is float32 when it is trained in half precision.
    widens_to_its_norm: bool = False
    # Beginnings of parameter names here, and what transformers 5 has in their place; None: not known.
    transformers_names: tuple[tuple[str, str], ...] | None = None


_QWEN = Quirks(
    wrapped_in=("<|vision_start|>", "<|vision_end|>"),
    transformers_names=(("language_model.model.", "model.language_model."), ("vision_tower.", "model.visual.")),
)
_IDEFICS = Quirks(
    zero_is_padding=True,
    widens_to_its_norm=True,
    transformers_names=(
        ("language_model.", "model.text_model."),
        ("vision_model.", "model.vision_model."),
        ("connector.", "model.connector."),
    ),
)

QUIRKS = {
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "gemma3": Quirks(
        sees_images_whole=True,
        mends_config=True,
        transformers_names=(
            ("language_model.model.", "model.language_model."),
            ("vision_tower.vision_model.", "model.vision_tower."),
            ("multi_modal_projector.", "model.multi_modal_projector."),
        ),
    ),
    "smolvlm": _IDEFICS,
    "idefics3": _IDEFICS,
}


def is_of_language(path: str, _: Any = None) -> bool:
    """Whether a path is in the language model, all that is held in fewer bits: what a vision tower loses is lost."""
    return path.startswith("language_model.")


def quirks_of(model_type: str) -> Quirks:
    """The quirks of a family by config.json's `model_type`."""
    return QUIRKS.get(model_type.lower(), Quirks())
