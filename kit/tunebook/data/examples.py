"""The neutral example: what every data format becomes, and all that a model family ever sees of a row.

An example is an ordered run of parts. Whether a part is supervised is decided once, where its text was rendered
(`formats/`), and is never guessed again further down.
"""

from dataclasses import dataclass
from typing import ClassVar

from .images import ImageReference


@dataclass(frozen=True)
class Text:
    """A stretch of text, exactly as the model shall read it."""

    text: str
    supervised: bool = False  # True: the model is trained to write it


@dataclass(frozen=True)
class Image:
    """An image, at the place its placeholder had in the text."""

    image: ImageReference
    supervised: ClassVar[bool] = False  # no model here is trained to write one


@dataclass(frozen=True)
class Tokens:
    """A whole row that came tokenized; it stands alone in its example."""

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]  # one per id


@dataclass(frozen=True)
class Example:
    """One training row, as ordered parts: texts and images, or one `Tokens`."""

    parts: tuple[Text | Image | Tokens, ...]
    rendered: bool  # True: the special tokens are there already; False: raw text, the family adds BOS and EOS
    unread: tuple[str, ...] = ()  # what the row says besides, and nobody reads: "column 'functions'"
    markup: bool = False  # whether a turn was put through the chat template before

    @property
    def text(self) -> str:
        """All parts joined. Raises ValueError for a tokenized row, and for one with images: they are no text."""
        return "".join(part.text for part in texts(self))


def texts(example: Example) -> tuple[Text, ...]:
    """The parts of an example of text alone. Raises ValueError for a tokenized row and for one with images."""
    parts = tuple(part for part in example.parts if isinstance(part, Text))
    if any(isinstance(part, Image) for part in example.parts):
        raise ValueError("This example holds images, so it is no text.")
    if len(parts) < len(example.parts):
        raise ValueError("This example came as token ids (columns input_ids, labels), so it has no text.")
    return parts
