"""Attention layers made to work in blocks (`blockwise_attention.py`), where every row of a batch sees alike.

MLX trains through the plain form of attention, which makes every score and masks half of them, or with a sliding window
nearly all. What differs from row to row (documents sharing one, images seen whole) or has sinks or a cache goes through
the library's own function as ever, mlx-lm's or mlx-vlm's.
"""

import math
from contextlib import AbstractContextManager
from functools import partial
from types import FunctionType
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..models.layer_calls import Call, replaced_name
from .blockwise_attention import attention_in_blocks
from .forms import Forms, forms_for

NAME = "scaled_dot_product_attention"  # what the attention layers call, found among the globals of their module
HOMES = ("mlx_lm.models.base", "mlx_vlm.models.base")  # where it is from; the two (0.32, 0.7.10) are called alike
MOST_BLOCKS = 16  # with more, little is saved that their number does not cost


def block_attention(
    module: nn.Module, forms: Forms | None = None, *, recomputed: bool = False, masks: bool = True
) -> AbstractContextManager[None]:
    """Have the attention layers of `module` work in blocks until the block ends; other models stay as they are.

    Without `masks` only what is causal by name is: a mask has to be looked at, which a compiled pass cannot.
    """
    return replaced_name(
        module.modules(),
        NAME,
        lambda found: isinstance(found, FunctionType) and found.__module__ in HOMES,
        lambda own: partial(_instead, own=own, forms=forms or forms_for(), recomputed=recomputed, masks=masks),
    )


def _instead(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: mx.array | str | None,
    sinks: mx.array | None = None,
    *,
    own: Call,
    forms: Forms,
    recomputed: bool,
    masks: bool,
) -> mx.array:
    """In the place of a library's `own` function of this name: in blocks where every row has the same mask."""
    length = queries.shape[2]
    rows = forms.attention_rows
    if not recomputed:  # then all scores are kept, however many blocks they are made in
        rows = max(rows, math.ceil(length / MOST_BLOCKS))
    is_shared = isinstance(mask, str) or (masks and mask is not None and mask.ndim == 2 and mask.dtype == mx.bool_)
    if cache is not None or sinks is not None or not is_shared or length <= rows:
        return own(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)
    return attention_in_blocks(
        queries,
        keys,
        values,
        scale=scale,
        rows=rows,
        recomputed=recomputed,
        mask=mask if isinstance(mask, mx.array) else None,
        written_out=forms.attention == "written out",
    )
