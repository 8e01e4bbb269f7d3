"""Answers to compare: what a row of preferences becomes, and all that is seen of it further down.

Beside `examples.py`: the texts here are examples too, but what is learnt of them is said by an objective, not by which
part is supervised.
"""

from dataclasses import dataclass

from .examples import Example


@dataclass(frozen=True)
class Answers:
    """A prompt, and the same prompt with an answer behind it once or twice."""

    prompt: Example  # up to where an answer begins
    wholes: tuple[Example, ...]  # with the chosen answer and with the rejected one, or with the one that was judged
    label: bool | None = None  # whether the one is a good answer; None: there are two
    unread: tuple[str, ...] = ()  # what the row says besides, and nobody reads: "column 'score'"
    markup: bool = False  # as of an example
