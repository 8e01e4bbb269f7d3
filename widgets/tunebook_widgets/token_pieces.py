"""Token ids -> pieces of text that can be looked at: one per token, or per character where a character takes several.

A piece shows what is in the data and does none of it: control characters and those that turn the direction of writing
become symbols. Nothing is left out; the ids of all pieces, one after another, are the ids that came in.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from unicodedata import category

Decode = Callable[[Sequence[int]], str]

UNFINISHED = "\ufffd"  # how a decoder writes bytes that are no whole character (yet)
MOST_BYTES = 4  # of a character in UTF-8, and so of tokens it may be spread over

# Unicode's categories of control, format (invisible, or turning the direction), surrogate and separating characters.
_ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@dataclass(frozen=True)
class Piece:
    """A stretch of text that one or a few tokens stand for."""

    text: str  # as `visible` made it
    ids: tuple[int, ...]
    trained: bool
    special: bool


def pieces(tokens: Sequence[int], trained: Sequence[bool], *, decode: Decode, special: AbstractSet[int]) -> list[Piece]:
    """The pieces of (T,) ids and their (T,) supervision. `decode` turns ids into text, special tokens included.

    A token's text depends on the token before it (SentencePiece drops a leading blank), so it is the difference its
    token makes behind that one. Tokens on either side of a change of supervision never share a piece.
    """
    made: list[Piece] = []
    before: list[int] = []  # the ids of the piece before
    waiting: list[int] = []  # ids that have not made a whole character yet
    for place, token in enumerate(tokens):
        waiting.append(token)
        is_last = place + 1 == len(tokens) or trained[place + 1] != trained[place]
        text = decode([*before, *waiting])[len(decode(before)) :] if before else decode(waiting)
        if text.endswith(UNFINISHED) and not is_last and len(waiting) < MOST_BYTES:
            continue
        made.append(Piece(visible(text), tuple(waiting), trained[place], token in special))
        before, waiting = waiting, []
    return made


def visible(text: str) -> str:
    """`text` with a symbol for every character that is invisible or acts on what is around it; tab and newline stay."""
    return "".join(_symbol(char) if category(char) in _ACTING and char not in "\t\n" else char for char in text)


def _symbol(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of the control characters: ␛ is 0x1b
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
