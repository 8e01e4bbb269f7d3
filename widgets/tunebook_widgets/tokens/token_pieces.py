"""Token ids -> pieces of text that can be looked at: one per token, or per character where a character takes several.

The many tokens of a picture, all the same, are one piece that says how many they are. A piece shows what is in the data
and does none of it: control characters and those that turn the direction of writing are named, not written. Nothing is
left out; the ids of all pieces, one after another, are the ids that came in.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import groupby

from tunebook.machine.inert import visible

Decode = Callable[[Sequence[int]], str]

LONG_RUN = 4  # tokens, all the same, special and only read, from which on they are counted

UNFINISHED = "\ufffd"  # how a decoder writes bytes that are no whole character (yet)


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
        if not is_last and _text(before, waiting, decode).endswith(UNFINISHED):
            continue
        while waiting:
            count = _first(before, waiting, decode)
            ids, text = waiting[:count], _text(before, waiting[:count], decode)
            made.append(Piece(visible(text), tuple(ids), trained[place], count == 1 and ids[0] in special))
            before, waiting = ids, waiting[count:]
    return [piece for _, run in groupby(made, _alike) for piece in _counted(list(run))]


def _alike(piece: Piece) -> tuple[object, ...]:
    return piece.ids, piece.special, piece.trained


def _counted(run: list[Piece]) -> list[Piece]:
    """A run of pieces that are the same, or one in their place where they are the tokens of a picture."""
    first = run[0]
    if len(run) < LONG_RUN or first.trained or not first.special:
        return run
    return [replace(first, text=f"{first.text} × {len(run)}", ids=first.ids * len(run))]


def _text(before: list[int], ids: list[int], decode: Decode) -> str:
    """What `ids` add to the text of `before`."""
    return decode([*before, *ids])[len(decode(before)) :] if before else decode(ids)


def _first(before: list[int], ids: list[int], decode: Decode) -> int:
    """How many of `ids` are a piece of their own: the fewest that mean the same with the others behind them or not.

    Bytes that are no character, and a U+FFFD that was in the data, only look unfinished.
    """
    whole = _text(before, ids, decode)
    for count in range(1, len(ids)):
        if _text(before, ids[:count], decode) + decode(ids[count:]) == whole:
            return count
    return len(ids)
