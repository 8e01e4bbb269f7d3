"""What is particular about each family of mlx-vlm (0.7), as data: nowhere else is a family named.

A family that is not in the table is called like the others, and `check.py` decides whether that is right.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """How one family differs from the rest."""

    # Tokens that must stand around a placeholder; without them positions are one-dimensional, and nobody says so.
    wrapped_in: tuple[str, str] | None = None
    # The tokens of one image attend to one another in both directions (transformers 5, modeling_gemma3).
    sees_images_whole: bool = False
    # The image features are divided by the root of the text width, and checkpoints leave that number out.
    width_of_text_in_config: bool = False
    trains_tower: bool = True  # gradients of the vision tower and the projector are right
    # Beginnings of parameter names here, and what transformers 5 has in their place; None: not known.
    names_in_transformers: tuple[tuple[str, str], ...] | None = None


_QWEN = Quirks(
    wrapped_in=("<|vision_start|>", "<|vision_end|>"),
    names_in_transformers=(("language_model.model.", "model.language_model."), ("vision_tower.", "model.visual.")),
)
_IDEFICS = Quirks(
    names_in_transformers=(
        ("language_model.", "model.text_model."),
        ("vision_model.", "model.vision_model."),
        ("connector.", "model.connector."),
    )
)

QUIRKS = {
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "gemma3": Quirks(
        sees_images_whole=True,
        width_of_text_in_config=True,
        names_in_transformers=(
            ("language_model.model.", "model.language_model."),
            ("vision_tower.", "model.vision_tower."),
            ("multi_modal_projector.", "model.multi_modal_projector."),
        ),
    ),
    "smolvlm": _IDEFICS,
    "idefics3": _IDEFICS,
    # The backward pass of its tower ends in a reshape that MLX cannot make (mlx-vlm 0.7.10).
    "llava": Quirks(trains_tower=False),
}


def quirks_of(model_type: str) -> Quirks:
    """The quirks of a family by config.json's `model_type`."""
    return QUIRKS.get(model_type.lower(), Quirks())
