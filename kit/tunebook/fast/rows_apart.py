"""Rows of different lengths, each computed no further than to its last token that is asked for.

A batch is a rectangle: a short row is padded to the length of the longest, and layers compute that padding like
anything else. Where a launch costs nothing, as on the CPU, a few passes over fewer tokens take less time and memory
than one over all of them, for the same numbers. A GPU wants its rows together.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..models.families.base import Batch, Family
from ..models.layers import has_dropout
from .forms import Forms

LEAST_SAVED = 32  # tokens of padding in a row for which it goes apart; the work of one more pass is that of about ten


def go_apart(forms: Forms, module: nn.Module, *, compiled: bool, noise: bool) -> bool:
    """Whether a pass computes rows apart: lengths are no shapes, and what noise and dropout draw is by a batch's."""
    return forms.rows == "apart" and not (compiled or noise or has_dropout(module))


def states_at(family: Family, module: nn.Module, batch: Batch, positions: mx.array) -> mx.array:
    """(N, D): what `family.hidden` has at `positions` (N,) of its flattened (B * (T-1)) states.

    `positions` have values: this cannot be compiled.
    """
    width = batch["tokens"].shape[1] - 1
    rows, columns = np.divmod(np.array(positions), width)
    needed = np.zeros(len(batch["tokens"]), dtype=np.int64)
    np.maximum.at(needed, rows, columns + 1)
    found, order = [], []
    for group in groups_of(needed):
        longest = int(needed[group].max())
        part = family.part(batch, group, longest + 1)
        if part is None:  # of all, or of none: a family tells by the kind of batch
            return _flattened(family.hidden(module, batch))[positions]
        places = np.flatnonzero(np.isin(rows, group))
        row_in_group = np.searchsorted(group, rows[places])
        states = _flattened(family.hidden(module, part))
        found.append(states[mx.array(row_in_group * longest + columns[places])])
        order.append(places)
    if len(found) == 1:
        return found[0]
    return mx.concatenate(found)[mx.array(np.argsort(np.concatenate(order)))]


def groups_of(lengths: np.ndarray) -> list[np.ndarray]:
    """Ascending row numbers of each group: rows that differ by fewer than LEAST_SAVED tokens; none of no length."""
    groups: list[list[int]] = []
    for row in np.argsort(-lengths, kind="stable"):
        if lengths[row] == 0:
            break
        if groups and lengths[groups[-1][0]] - lengths[row] < LEAST_SAVED:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [np.sort(np.array(group)) for group in groups]


def _flattened(states: mx.array) -> mx.array:
    return states.reshape(-1, states.shape[-1])
