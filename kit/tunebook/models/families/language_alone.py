"""Whether a model that reads images can be tuned on text alone, and so be advised to: mlx-lm must have its kind."""

from typing import Any

from mlx_lm.utils import _get_classes


def has_language_model(config: dict[str, Any]) -> bool:
    """Whether mlx-lm has a model of the kind that `config` describes."""
    try:
        _get_classes({"model_type": config.get("model_type"), "architectures": config.get("architectures")})
    except ValueError:
        return False
    return True


def instead_of_images(config: dict[str, Any]) -> str:
    """What to do with a model that cannot be tuned on images, as a sentence."""
    if has_language_model(config):
        return "Pass text_only=True to tune its language model alone, or take another model."
    return f"Take another model: mlx-lm has no language model of model_type {config.get('model_type')!r} to tune alone."
