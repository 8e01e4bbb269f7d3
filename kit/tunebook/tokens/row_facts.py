"""Encoded rows -> a few numbers about each of them: lengths, trained tokens, copies, and what is odd.

Rows are read a few at a time, once, and nothing else of them is kept. What these numbers say of a whole set is
`data_report.py`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import final

import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..data.encoded import Encoded

AT_ONCE = 1024  # rows looked at together


@dataclass(frozen=True, eq=False)
class Columns:
    """A few numbers about each encoded row, in the rows' order. Every array is (N,), over encoded rows."""

    number: np.ndarray  # int64, of the row in its source
    length: np.ndarray  # int64, tokens; of a pair those of its longer side
    tokens: np.ndarray  # int64, tokens of all that goes through the model
    trained: np.ndarray  # int64, tokens
    cut: np.ndarray  # int64, tokens left out because the row was longer than max_seq_length
    first_alike: np.ndarray  # int64, index of the first row with the same tokens and mask; its own when there is none
    empty_answer: np.ndarray  # bool, a trained stretch holds nothing but whitespace and special tokens
    no_end: np.ndarray  # bool, the last trained stretch ends in no end token, though nothing was cut
    double_bos: np.ndarray  # bool, two BOS tokens open the row
    unknown_token: np.ndarray  # bool, some token is the tokenizer's unknown one

    @property
    def copies(self) -> np.ndarray:
        """(N,) bool: rows that were there before."""
        return self.first_alike != np.arange(len(self.first_alike))


def columns_of(rows: Sequence[Encoded], tokenizer: TokenizerWrapper) -> Columns:
    """The numbers of `rows`, which were encoded with `tokenizer`; each row is read once."""
    meanings = _Meanings(tokenizer)
    first_of: dict[bytes, int] = {}
    parts: list[Columns] = []
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        sequences = [sequence for row in some for sequence in row.sequences]
        owners = np.repeat(np.arange(len(some)), [len(row.sequences) for row in some])
        alike = [first_of.setdefault(row.digest, start + place) for place, row in enumerate(some)]
        parts.append(_rows_of(_chunk_columns(sequences, meanings), np.array(alike), owners))
    whole = Columns(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Columns)))
    goes_on = np.append(whole.number[1:] == whole.number[:-1], False)  # a piece of raw text that others follow
    return replace(whole, no_end=whole.no_end & ~goes_on)


@final
class _Meanings:
    """What token ids mean to the checks, learnt as they are met."""

    def __init__(self, tokenizer: TokenizerWrapper):
        self.decode = tokenizer.decode
        self.bos: int | None = tokenizer.bos_token_id
        self.ends = sorted(tokenizer.eos_token_ids)
        # GPT-2 has one token for everything, and it stands at the end of every row.
        is_other = tokenizer.unk_token_id in {self.bos, *self.ends}
        self.unknown: int | None = None if is_other else tokenizer.unk_token_id
        self._special = set(tokenizer.all_special_ids) | set(self.ends)
        self._speaks: dict[int, bool] = {}

    def speaks(self, tokens: np.ndarray) -> np.ndarray:
        """(n,) ids -> (n,) bool: neither special nor whitespace alone."""
        kinds, which = np.unique(tokens, return_inverse=True)
        return np.array([self._says_something(kind) for kind in kinds.tolist()], dtype=bool)[which]

    def _says_something(self, token: int) -> bool:
        if token not in self._speaks:
            self._speaks[token] = token not in self._special and bool(self.decode([token]).strip())
        return self._speaks[token]


def _rows_of(sequences: Columns, first_alike: np.ndarray, owners: np.ndarray) -> Columns:
    """The numbers of rows, of those of their sequences: `owners` (S,) are ascending, each the row of a sequence."""
    starts = np.flatnonzero(np.append(True, owners[1:] != owners[:-1]))
    by_row = {f.name: np.maximum.reduceat(getattr(sequences, f.name), starts) for f in fields(Columns)}
    sums = {name: np.add.reduceat(getattr(sequences, name), starts) for name in ("tokens", "trained")}
    return Columns(**{**by_row, **sums, "first_alike": first_alike})


def _chunk_columns(rows: Sequence[Encoded], meanings: _Meanings) -> Columns:
    """The numbers of a few sequences, whose n tokens lie end to end in the arrays here."""
    length = np.array([len(row.tokens) for row in rows])
    cut = np.array([row.cut for row in rows])
    ends = np.cumsum(length)
    starts = ends - length
    tokens = np.concatenate([row.tokens for row in rows])  # (n,)
    trained = np.concatenate([row.loss_mask for row in rows])  # (n,)
    trained[starts] = False  # the first token is predicted from nothing
    row_of = np.repeat(np.arange(len(rows)), length)  # (n,)
    place = np.arange(len(tokens))  # (n,)
    speaks = np.zeros(len(tokens), dtype=bool)
    speaks[trained] = meanings.speaks(tokens[trained])

    opens = trained & ~np.append(False, trained[:-1])  # (n,) first token of each trained stretch
    stretch_of = np.cumsum(opens)[trained] - 1  # for each trained token
    stretches = int(opens.sum())
    is_empty = np.bincount(stretch_of, weights=speaks[trained], minlength=stretches) == 0
    reaches_cut = np.zeros(stretches, dtype=bool)  # what was cut off may have said something
    reaches_cut[stretch_of[(cut > 0)[row_of[trained]] & (place == (ends - 1)[row_of])[trained]]] = True
    empty_answer = np.zeros(len(rows), dtype=bool)
    empty_answer[row_of[opens][is_empty & ~reaches_cut]] = True

    last_end = np.maximum.reduceat(np.where(trained & np.isin(tokens, meanings.ends), place, -1), starts)
    speaks_on = np.logical_or.reduceat(speaks & (place > last_end[row_of]), starts)
    second = tokens[np.minimum(starts + 1, ends - 1)]
    nowhere = np.zeros(len(rows), dtype=bool)
    return Columns(
        number=np.array([row.number for row in rows]),
        length=length,
        tokens=length,
        trained=np.add.reduceat(trained, starts, dtype=np.int64),
        cut=cut,
        first_alike=np.arange(len(rows)),
        empty_answer=empty_answer,
        no_end=((last_end < 0) | speaks_on) & (cut == 0),
        double_bos=nowhere
        if meanings.bos is None
        else (tokens[starts] == second) & (second == meanings.bos) & (length > 1),
        unknown_token=nowhere
        if meanings.unknown is None
        else np.logical_or.reduceat(tokens == meanings.unknown, starts),
    )
