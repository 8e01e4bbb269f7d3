"""What a reference said of rows before a run, kept as a number for each answer and found again by what a row is.

A row is known by its number and the digest of its content. KTO's mismatched answers are of two rows: the prompt of the
one, the answer of the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import mlx.core as mx
import numpy as np

from ..data.encoded import Batch, Encoded

Table = dict[bytes, np.ndarray]  # what a row is -> (S,) float32: a log-probability for each of its sequences

KEY_BYTES = 24  # of a row; a pair of rows has twice as many
DIGEST = slice(KEY_BYTES - 16, KEY_BYTES)  # where in it the digest of its content stands


@final
@dataclass(frozen=True)
class Said:
    """What a reference said of the rows of one set."""

    own: Table  # of rows
    mismatched: Table  # of prompts, each with the answer of another row; empty where no KL is taken

    def added_to(self, batch: Batch, rows: Sequence[Encoded]) -> Batch:
        """`batch` with "reference_logps" for itself and for "mismatched", as far as they are here of its `rows`."""
        known = dict(batch)
        if (logps := _found(self.own, map(key_of, rows))) is not None:
            known["reference_logps"] = logps
        if self.mismatched and (logps := _found(self.mismatched, mismatched_keys(rows))) is not None:
            known["mismatched"] = {**batch["mismatched"], "reference_logps": logps}
        return known

    @property
    def arrays(self) -> dict[str, mx.array]:
        """All of it, to be written down; `from_arrays` reads it."""
        found = {}
        for name, table in (("own", self.own), ("mismatched", self.mismatched)):
            if table:
                keys = np.frombuffer(b"".join(table), np.uint8).reshape(len(table), -1)  # (N, bytes of a key)
                found |= {f"{name}.keys": mx.array(keys), f"{name}.logps": mx.array(np.stack([*table.values()]))}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, mx.array]) -> "Said":
        """What `arrays` gave."""
        tables = []
        for name in ("own", "mismatched"):
            keys, logps = (np.array(arrays.get(f"{name}.{part}", mx.array([]))) for part in ("keys", "logps"))
            tables.append({key.tobytes(): values for key, values in zip(keys, logps, strict=True)})
        return cls(*tables)


def key_of(row: Encoded) -> bytes:
    """What a row is, in KEY_BYTES. Its number counts: alike rows of other batches differ in rounding."""
    return row.number.to_bytes(KEY_BYTES - 16, "little", signed=True) + row.digest


def mismatched_keys(rows: Sequence[Encoded]) -> list[bytes]:
    """Of each prompt of a batch with the answer of the row before it, as `tokens.answers.mismatched` has them."""
    keys = [key_of(row) for row in rows]
    return [key + keys[index - 1] for index, key in enumerate(keys)]


def by_row(logps: np.ndarray, rows: int) -> np.ndarray:
    """(rows, S) of those of a batch (S * rows,), which has first all sequences that were chosen, then the others."""
    return logps.reshape(-1, rows).T


def _found(table: Table, keys: Iterable[bytes]) -> mx.array | None:
    """(S * rows,) in the order of a batch; None where one of the rows is not there."""
    keys = [*keys]
    if not all(key in table for key in keys):
        return None
    return mx.array(np.stack([table[key] for key in keys]).T.reshape(-1))
