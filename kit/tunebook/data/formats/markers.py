"""Supervision by marker strings, for text whose template is not at hand or cannot be followed.

A text goes in, its parts come out. The markers are trusted: what stands between a response marker and the next
instruction marker is supervised, whatever it is.
"""

from collections.abc import Iterator

from ..examples import Text
from .columns import BadRow
from .supervision import split
from .templates import Span

Markers = tuple[
    str, str
]  # (instruction_part, response_part), such as ("<|im_start|>user\n", "<|im_start|>assistant\n")


def supervise_between(text: str, instruction_part: str, response_part: str) -> tuple[Text, ...]:
    """The parts of `text`, supervised from behind each `response_part` to before the next `instruction_part`.

    Whitespace at the end of a stretch is not supervised. Raises BadRow when no response is found, ValueError for an
    empty marker.
    """
    if not instruction_part or not response_part:
        raise ValueError(f"response_markers are {(instruction_part, response_part)!r}; neither may be empty.")
    spans = [(start, end) for start, end in _responses(text, instruction_part, response_part) if start < end]
    if not spans:
        raise BadRow(f"it holds no text behind the response marker {response_part!r}.")
    return tuple(split(text, spans))


def _responses(text: str, instruction_part: str, response_part: str) -> Iterator[Span]:
    cursor = 0
    while (found := text.find(response_part, cursor)) != -1:
        start = found + len(response_part)
        end = text.find(instruction_part, start)
        cursor = len(text) if end == -1 else end
        yield start, start + len(text[start:cursor].rstrip())
