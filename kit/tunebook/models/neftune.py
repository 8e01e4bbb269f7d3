"""NEFTune: uniform noise on the embedded tokens while training (Jain et al. 2023, arXiv 2310.05914).

The noise is drawn from MLX's random state, which the loop seeds at every step, so a resumed run draws it again.
"""

import math
from contextlib import AbstractContextManager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .layer_calls import Call, Wrap, replaced_calls

# What mlx-lm's models (0.32) call the layer that embeds the tokens.
NAMES = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "token_embeddings", "embeddings")


def noisy_embeddings(module: nn.Module, alpha: float) -> AbstractContextManager[None]:
    """Have embeddings (B, T, D) made in training mode carry noise within alpha / sqrt(T * D), until the block ends.

    T counts padding too, as in transformers. Raises ValueError for a model whose token embedding is not found.
    """
    return replaced_calls([token_embedding(module)], _noise(alpha))


def token_embedding(module: nn.Module) -> nn.Module:
    """The layer that embeds the tokens. Raises ValueError for a model that calls it by no name known here."""
    inside = module.get("language_model", module)  # not what embeds the patches of an image
    found = {path: layer for path, layer in inside.named_modules() if path.split(".")[-1] in NAMES}
    if not found:
        raise ValueError(
            f"neftune_noise_alpha is set, but this model has no layer called {' or '.join(NAMES)} to add the noise "
            "to; leave it out."
        )
    return found[min(found, key=len)]  # an adapter's own base layer lies deeper


def _noise(alpha: float) -> Wrap:
    def wrap(plain: Call) -> Call:
        def call(layer: nn.Module, *args: Any, **kwargs: Any) -> mx.array:
            embedded = plain(layer, *args, **kwargs)  # (B, T, D)
            if not layer.training:
                return embedded
            reach = alpha / math.sqrt(embedded.shape[-2] * embedded.shape[-1])
            return embedded + mx.random.uniform(-reach, reach, embedded.shape).astype(embedded.dtype)

        return call

    return wrap
