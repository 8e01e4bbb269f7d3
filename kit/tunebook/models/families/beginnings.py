"""What several rows begin with, read once: its tokens go in, the keys and values that attention keeps of them come out.

mlx-lm's models take what stands before a text as a cache of each layer, and ask that for positions and a mask
(mlx_lm/models/base.py, 0.32). The caches here are of rows of unequal length, and copy nothing but what a layer is about
to look at. Attention is all that many rows can go on from; models that carry other state are refused, and that the rest
give the same numbers is proven on a probe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

Layer = tuple[mx.array, mx.array]  # keys and values (B, H, T, D)


@dataclass(frozen=True)
class Read:
    """B texts as attention keeps them."""

    lengths: np.ndarray  # (B,) tokens; what stands behind them is padding
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Before:
    """What stands before each of N rows: texts that were read, one behind the other."""

    count: int  # N
    pieces: tuple[tuple[Read, np.ndarray], ...] = ()  # with each (N,), which of its texts is before which row

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens."""
        return sum((read.lengths[rows] for read, rows in self.pieces), np.zeros(self.count, np.int64))

    def of(self, places: Sequence[int]) -> "Before":
        """What stands before some of the rows, in this order."""
        return Before(len(places), tuple((read, rows[list(places)]) for read, rows in self.pieces))

    def then(self, read: Read) -> "Before":
        """With one more text behind it, each row's own."""
        return Before(self.count, (*self.pieces, (read, np.arange(self.count))))


def read_texts(module: nn.Module, called: nn.Module, texts: Sequence[np.ndarray], before: Before) -> Read:
    """What the layers of `module`, as `called` calls them, keep of `texts`, (T,) ids each, a row each of `before`."""
    lengths = np.array([len(text) for text in texts])
    tokens = np.zeros((len(texts), lengths.max()), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text
    caches = caches_behind(module, before, tokens.shape[1])
    called(mx.array(tokens), cache=caches)
    layers = tuple(cache.own for cache in caches)
    mx.eval(layers)
    return Read(lengths, layers)


def caches_behind(module: nn.Module, before: Before, width: int) -> list["BehindCache"]:
    """What to call an mlx-lm model with as `cache`, for rows of `width` tokens behind those `before` them."""
    places = _Places(before, width)
    return [BehindCache(layer, before, places) for layer in range(len(make_prompt_cache(module)))]


def carried_state(module: nn.Module) -> str | None:
    """The kind of the cache that holds more than keys and values; None where there is none."""
    others = {type(cache).__name__ for cache in make_prompt_cache(module)} - {
        KVCache.__name__,
        RotatingKVCache.__name__,
    }
    return min(others, default=None)


@final
class BehindCache:
    """Stands where a layer's cache would, between the layer and what stands before its rows."""

    own: Layer  # what the layer made of the rows themselves

    def __init__(self, layer: int, before: Before, places: "_Places"):
        self._before = [(read.layers[layer], rows) for read, rows in before.pieces]
        self._places = places
        self.offset = places.offset  # of the positions

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Layer:
        self.own = keys, values
        return self.keys_and_values()

    def keys_and_values(self) -> Layer:
        """(N, H, S, D) each: layers that look at another's ask for them (Gemma 3n)."""
        keys, values = (
            mx.concatenate([*(_of_rows(layer[kind], rows) for layer, rows in self._before), own], axis=2)
            for kind, own in enumerate(self.own)
        )
        return keys, values

    def make_mask(
        self,
        N: int,  # noqa: ARG002 - the width is known
        return_array: bool = False,  # noqa: ARG002 - it always is one
        window_size: int | None = None,
    ) -> mx.array:
        return self._places.mask(window_size)


@final
class _Places:
    """Where the tokens of N rows of `width` stand, and those before them: what all layers have in common."""

    def __init__(self, before: Before, width: int):
        lengths = before.lengths
        # Where all rows have the same mask there is one: some models take no other.
        self._is_one = all(np.ptp(some) == 0 for some in (lengths, *(read.lengths for read, _ in before.pieces)))
        self.offset: int | mx.array = int(lengths[0]) if self._is_one else mx.array(lengths.astype(np.int32))
        self._asked = lengths[:, None] + np.arange(width)  # (N, T)
        begins, keys, are_tokens = np.zeros_like(lengths), [], []
        for read, rows in before.pieces:
            counted = np.arange(read.layers[0][0].shape[2])
            keys.append(begins[:, None] + counted)
            are_tokens.append(counted < read.lengths[rows][:, None])
            begins = begins + read.lengths[rows]
        self._keys = np.concatenate([*keys, self._asked], axis=1)  # (N, S)
        self._are_tokens = np.concatenate([*are_tokens, np.ones_like(self._asked, bool)], axis=1)
        self._masks: dict[int | None, mx.array] = {}

    def mask(self, window: int | None) -> mx.array:
        """(N, 1, T, S) bool, or (T, S) where it is one for all: causal, and within `window` tokens where given."""
        if window not in self._masks:
            self._masks[window] = mx.array(self._seen(window))
        return self._masks[window]

    def _seen(self, window: int | None) -> np.ndarray:
        some = slice(1) if self._is_one else slice(None)
        asked, keys = self._asked[some, :, None], self._keys[some, None]
        seen = (keys <= asked) & self._are_tokens[some, None]
        if window is not None:
            seen &= asked < keys + window
        return seen[0] if self._is_one else seen[:, None]


def _of_rows(kept: mx.array, rows: np.ndarray) -> mx.array:
    """(N, H, T, D): of (B, H, T, D) those of `rows` (N,), copied only where they are neither all one nor in order."""
    if len(kept) == 1:
        return mx.broadcast_to(kept, (len(rows), *kept.shape[1:]))
    return kept if np.array_equal(rows, np.arange(len(kept))) else kept[mx.array(rows)]
