"""Attention layers made to work in blocks (`blockwise_attention.py`), where every row of a batch sees alike.

On the CPU MLX trains through the plain form of attention, which makes every score and masks half of them. So it does on
a GPU where a mask is an array, as with a sliding window, and then nearly all are masked. What differs from row to row
(documents sharing one, images seen whole) or has sinks or a cache goes through the library's own function as ever,
mlx-lm's or mlx-vlm's; and on Metal what is causal, for which MLX has a kernel and another for its gradient.
"""

import math
from contextlib import AbstractContextManager
from functools import partial
from types import FunctionType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..models.layer_calls import Call, replaced_name
from .blockwise_attention import attention_in_blocks
from .forms import Forms, forms_for

NAME = "scaled_dot_product_attention"  # what the attention layers call, found among the globals of their module
HOMES = ("mlx_lm.models.base", "mlx_vlm.models.base")  # where it is from; the two (0.32, 0.7.10) are called alike
MOST_BLOCKS = 16  # with more, little is saved that their number does not cost


def block_attention(
    module: nn.Module, forms: Forms | None = None, *, recomputed: bool = False
) -> AbstractContextManager[None]:
    """Have the attention layers of `module` work in blocks until the block ends; other models stay as they are.

    With the form "whole" what is causal by name is left to MLX.
    """
    return replaced_name(
        module.modules(),
        NAME,
        lambda found: isinstance(found, FunctionType) and found.__module__ in HOMES,
        lambda own: partial(_instead, own=own, forms=forms or forms_for(), recomputed=recomputed),
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
) -> mx.array:
    """In the place of a library's `own` function of this name: in blocks where every row has the same mask."""
    length = queries.shape[2]
    rows = forms.attention_rows
    if not recomputed:  # then all scores are kept, however many blocks they are made in
        rows = max(rows, math.ceil(length / MOST_BLOCKS))
    goes_whole = length <= rows or (forms.attention == "whole" and isinstance(mask, str))
    if goes_whole or cache is not None or sinks is not None or not _is_known(mask):
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


def _is_known(mask: mx.array | str | None) -> bool:
    """Whether every row has the same mask, and it can be looked at."""
    if not isinstance(mask, mx.array):
        return mask is not None
    if mask.ndim != 2 or mask.dtype != mx.bool_:
        return False
    try:
        np.array(mask)
    except ValueError:  # in a compiled pass, of what follows from the batch
        return False
    return True
