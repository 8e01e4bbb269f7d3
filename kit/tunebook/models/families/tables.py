"""How many rows a model's tables have, and whether the numbers of a row are within them.

MLX reads whatever memory an index beyond a table leads to, and writes there in the backward pass. So the tables are
found once, on the model itself: a probe goes in, and every embedding is overheard while it is looked up in. After that
each row is held against them when it is encoded, by name, and again when it becomes part of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...data.encoded import Encoded
from ..layer_calls import Call, replaced_calls
from .base import Tables

Logits = Callable[[mx.array], mx.array]  # (1, T) token ids -> (1, T, V); nothing of it is computed

_PROBE = (3, 1, 4, 1, 5, 2, 6, 5)  # ids any vocabulary has, which are nobody's positions


class BeyondTable(ValueError):
    """A row with a number that its table has no row for; the message says which, without the row's number."""


@dataclass(frozen=True)
class Lookup:
    """One embedding that was looked up in."""

    path: str
    rows: int
    indices: list[int]


def find_tables(module: nn.Module, logits: Logits) -> Tables:
    """The tables of `module`, whose call is `logits`."""
    lookups, vocabulary = _overheard(module, logits, _PROBE)
    ordinals = range(len(_PROBE))
    positions = [
        lookup.rows - lookup.indices[0]  # OPT's table begins at its third row
        for lookup in lookups
        if lookup.indices == [lookup.indices[0] + place for place in ordinals]
    ]
    tokens = _of_tokens(module, logits, lookups)
    return Tables(
        tokens=min((lookup.rows for lookup in tokens), default=None),
        targets=vocabulary,
        positions=min(positions, default=None),
        paths=tuple(lookup.path for lookup in tokens),
    )


def check_row(row: Encoded, tables: Tables, tokenizer: TokenizerWrapper, *, what: str = "it") -> None:
    """Raise BeyondTable for a token of `row` that the embedding or the head has no row for."""
    for wrong, rows, part in _beyond(row.tokens, row.loss_mask, tables):
        if wrong.any():
            place = int(wrong.argmax())
            token = int(row.tokens[place])
            known = tokenizer.convert_ids_to_tokens(token) if 0 <= token < 2**31 else None
            name = f"{known!r} ({token})" if known else str(token)
            raise BeyondTable(
                f"{what} holds the token {name} at position {place}, and {part} ends at {rows - 1}; load the model "
                "with resize_embeddings=True to add rows for new tokens, or leave the token out of the tokenizer and "
                "the rows."
            )


def check_batch(rows: Sequence[Encoded], tokens: np.ndarray, loss_mask: np.ndarray, tables: Tables) -> None:
    """Raise ValueError where `rows`, together in (B, T) `tokens` with their (B, T) mask, reach beyond a table."""
    for wrong, ends, part in _beyond(tokens, loss_mask, tables):
        if wrong.any():
            index = int(wrong.any(axis=1).argmax())
            token = int(tokens[index][wrong[index]][0])
            raise ValueError(
                f"Row {rows[index].number} holds the token {token}, and {part} ends at {ends - 1}; make the Trainer "
                "again, and where it came as token ids correct them."
            )
    longest = max((len(row.tokens) for row in rows), default=0)
    if tables.positions is not None and longest > tables.positions:
        raise ValueError(
            f"A row has {longest} tokens, and this model has a table of {tables.positions} positions; set "
            f"max_seq_length={tables.positions}."
        )


def most_written(prompt: np.ndarray, tables: Tables, tokenizer: TokenizerWrapper, max_tokens: int) -> int:
    """How many tokens can follow a `prompt` of (T,) tokens: `max_tokens`, or as many as there are positions left.

    Raises BeyondTable for a prompt that is itself beyond a table, or leaves no position for an answer.
    """
    check_row(Encoded(tokens=prompt, loss_mask=np.zeros(len(prompt), dtype=bool)), tables, tokenizer, what="the prompt")
    if tables.positions is None:
        return max_tokens
    if len(prompt) >= tables.positions:
        raise BeyondTable(
            f"the prompt has {len(prompt)} tokens, and this model, with a table of {tables.positions} positions, needs "
            "one for its answer; shorten it."
        )
    return min(max_tokens, tables.positions - len(prompt))


def _beyond(tokens: np.ndarray, loss_mask: np.ndarray, tables: Tables) -> list[tuple[np.ndarray, int, str]]:
    """(where `tokens` are beyond a table, its rows, what it is called), of each table."""
    known = tables.targets if tables.tokens is None else tables.tokens
    found = [((tokens < 0) | (tokens >= known), known, "the embedding")]
    if tables.targets < known:  # tokens of images are read, and never written
        found.append((loss_mask & (tokens >= tables.targets), tables.targets, "the output head"))
    return found


def _of_tokens(module: nn.Module, logits: Logits, lookups: Sequence[Lookup]) -> list[Lookup]:
    """The lookups by token id, but for a smaller table that the model itself never looks beyond."""
    found = [lookup for lookup in lookups if lookup.indices == list(_PROBE)]
    most = max((lookup.rows for lookup in found), default=0)
    smaller = {lookup.path: lookup.rows for lookup in found if lookup.rows < most}
    if not smaller:
        return found
    again, _ = _overheard(module, logits, (max(smaller.values()),) * len(_PROBE))
    guarded = {lookup.path for lookup in again if lookup.path in smaller and max(lookup.indices) < lookup.rows}
    return [lookup for lookup in found if lookup.path not in guarded]


def _overheard(module: nn.Module, logits: Logits, probe: Sequence[int]) -> tuple[list[Lookup], int]:
    """(what is looked up for `probe`, V). Only the indices are computed, so one beyond its table reads nothing."""
    paths = {id(layer): path for path, layer in module.named_modules()}
    embeddings = [
        layer for _, layer in module.named_modules() if isinstance(layer, nn.Embedding | nn.QuantizedEmbedding)
    ]
    _heard.append([])
    try:
        with replaced_calls(embeddings, _listening):
            vocabulary = logits(mx.array([probe])).shape[-1]
        heard = _heard[-1]
    finally:
        _heard.pop()
    lookups = [
        Lookup(paths[id(layer)], layer["weight"].shape[0], np.array(indices).reshape(-1).tolist())
        for layer, indices in heard
        if indices.size == len(probe)
    ]
    return lookups, vocabulary


_heard: list[list[tuple[nn.Module, mx.array]]] = []  # lists, so that the call below is always the same one


def _listening(plain: Call) -> Call:
    def call(layer: nn.Module, indices: mx.array, *args: Any, **options: Any) -> mx.array:
        _heard[-1].append((layer, indices))
        return plain(layer, indices, *args, **options)

    return call
