"""One example as numbers, and many of them as a batch: the records of the data path behind the tokenizer.

Shapes: T tokens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .images import ImageReference

Batch = dict[str, Any]  # at least "tokens" (B, T) int32 and "loss_mask" (B, T) bool; the rest is the family's own


@dataclass(frozen=True)
class Encoded:
    """One example as numbers."""

    tokens: np.ndarray  # (T,) int32
    loss_mask: np.ndarray  # (T,) bool; True where the token is one the model is trained to predict
    cut: int = 0  # tokens left out because the row was longer than max_seq_length
    number: int = 0  # of the row in its source; of a packed row, of its first document
    segments: np.ndarray | None = None  # (T,) int32, the document each token of a packed row is of; None: it is one
    images: tuple[ImageReference, ...] = ()  # in the order of their tokens; of a pair the prompt's, once for each side
    images_end: int = 0  # tokens of a sequence up to and with its last image's; it is never cut before that
    second: int = 0  # of a pair: where the rejected answer's sequence begins, behind the chosen one's; 0: no pair
    label: bool | None = None  # of an answer that was judged by itself: whether it is a good one

    @property
    def supervised_tokens(self) -> int:
        """How many tokens enter the loss; the first of a sequence is predicted from nothing and never does."""
        unpredicted = int(self.loss_mask[self.second]) if self.second else 0
        return int(self.loss_mask[1:].sum()) - unpredicted

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return max(self.second, len(self.tokens) - self.second)

    @property
    def sequences(self) -> tuple["Encoded", ...]:
        """What goes through the model each by itself: the row, or both sides of a pair, each behind the prompt."""
        if not self.second:
            return (self,)
        images = self.images[: len(self.images) // 2], self.images[len(self.images) // 2 :]
        return tuple(
            replace(self, tokens=self.tokens[part], loss_mask=self.loss_mask[part], images=seen, second=0)
            for part, seen in zip((slice(self.second), slice(self.second, None)), images, strict=True)
        )

    @property
    def digest(self) -> bytes:
        """16 bytes, the same for rows of the same tokens, mask and images."""
        seen = b"".join(image.digest for image in self.images)
        if self.second or self.label is not None:
            seen += repr((self.second, self.label)).encode()
        return hashlib.blake2b(self.tokens.tobytes() + self.loss_mask.tobytes() + seen, digest_size=16).digest()


def sequences_of(rows: Sequence[Encoded]) -> list[Encoded]:
    """The sequences of all `rows`: of pairs first all that were chosen, then as many that were rejected."""
    return [sequence for side in zip(*(row.sequences for row in rows), strict=True) for sequence in side]


class Unreadable(ValueError):
    """A row whose images cannot be opened now that a batch needs them."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.number = number  # of the row in its source
