"""Documents that share a row, kept apart in attention: segment numbers go in, what an mlx-lm model takes as caches out.

mlx-lm's models take no mask, but they ask the cache of a layer for one (`create_attention_mask` in
mlx_lm/models/base.py, 0.32). Attention is all that can be divided so: a model that carries other state from token to
token is refused.
"""

from collections.abc import Sequence
from typing import final

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from ...data.encoded import Encoded

PADDING = -1  # the segment of padding


def padded_segments(rows: Sequence[Encoded], width: int) -> np.ndarray:
    """(B, width) int32: the document each token belongs to, counted from 0 in every row; `PADDING` past a row's end."""
    segments = np.full((len(rows), width), PADDING, dtype=np.int32)
    for index, row in enumerate(rows):
        segments[index, : len(row.tokens)] = 0 if row.segments is None else row.segments
    return segments


def isolating_caches(module: nn.Module, segments: mx.array) -> list["IsolatingCache"]:
    """What to call an mlx-lm model with as `cache`, so that no token attends to one of another segment; (B, T) int32.

    Positions run on from document to document, which rotary embeddings do not notice. Raises ValueError for a model
    whose layers remember more than keys and values.
    """
    caches = make_prompt_cache(module)
    others = {type(cache) for cache in caches} - {KVCache, RotatingKVCache}
    if others:
        names = ", ".join(sorted(other.__name__ for other in others))
        raise ValueError(
            f"its layers keep state of their own from token to token ({names}), and only attention can be divided by "
            "document"
        )
    return [IsolatingCache(segments)] * len(caches)


@final
class IsolatingCache:
    """Stands where a layer's cache would, keeps nothing, and masks attention by document. All layers may share one."""

    offset = 0  # of the positions

    def __init__(self, segments: mx.array):
        self._same = segments[:, None, :, None] == segments[:, None, None, :]  # (B, 1, T, T)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return keys, values

    def make_mask(
        self,
        N: int,
        return_array: bool = False,  # noqa: ARG002 - mlx-lm passes it by name; here it is always an array
        window_size: int | None = None,
    ) -> mx.array:
        """(B, 1, N, N) bool: causal, within `window_size` tokens where given, and within the document."""
        return create_causal_mask(N, window_size=window_size) & self._same
