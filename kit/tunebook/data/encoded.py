"""One example as numbers, and many of them as a batch: the records of the data path behind the tokenizer.

Shapes: T tokens.
"""

import hashlib
from dataclasses import dataclass
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
    images: tuple[ImageReference, ...] = ()  # in the order of their tokens
    images_end: int = 0  # tokens up to and with the last image's; a row is never cut before it

    @property
    def supervised_tokens(self) -> int:
        """How many tokens enter the loss; the first token is predicted from nothing and never does."""
        return int(self.loss_mask[1:].sum())

    @property
    def digest(self) -> bytes:
        """16 bytes, the same for rows of the same tokens, mask and images."""
        seen = b"".join(image.digest for image in self.images)
        return hashlib.blake2b(self.tokens.tobytes() + self.loss_mask.tobytes() + seen, digest_size=16).digest()


class Unreadable(ValueError):
    """A row whose images cannot be opened now that a batch needs them."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.number = number  # of the row in its source
