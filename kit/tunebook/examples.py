"""The neutral example: what every data format becomes, and all that a model family ever sees of a row.

An example is an ordered run of parts. Whether a part is supervised is decided once, where its text was rendered
(`formats.py`), and is never guessed again further down.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A stretch of text, exactly as the model shall read it."""

    text: str
    supervised: bool = False  # True: the model is trained to write it


@dataclass(frozen=True)
class Example:
    """One training row, as ordered parts."""

    parts: tuple[Text, ...]
    rendered: bool  # True: a chat template wrote the special tokens; False: raw text, the family adds BOS and EOS

    @property
    def text(self) -> str:
        """All parts joined."""
        return "".join(part.text for part in self.parts)
