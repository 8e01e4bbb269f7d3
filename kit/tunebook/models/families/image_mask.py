"""Attention for models that read an image whole: causal, but the tokens of one image see one another in both ways."""

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask


def image_mask(is_image: mx.array, window: int | None = None) -> mx.array:
    """(B, T) bool -> (B, 1, T, T) bool: who may see whom, within `window` tokens where given.

    A run of image tokens is one image. Padding is on the right, where nothing that counts can see it.
    """
    follows = mx.pad(is_image[:, :-1], [(0, 0), (1, 0)])
    image = mx.cumsum((is_image & ~follows).astype(mx.int32), axis=1) * is_image  # (B, T), 0 where there is none
    same = (image[:, :, None] == image[:, None, :]) & (image > 0)[:, :, None]  # (B, T, T)
    causal = create_causal_mask(is_image.shape[1], window_size=window)  # (T, T)
    return (causal | same)[:, None]
