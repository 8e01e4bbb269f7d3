"""What a row holds that is not read: columns its format does not know, keys of messages its template does not, frames.

And turns that a template wrote before, which are read otherwise than was meant. A row goes in, names come out, for one
notice a set. Nothing is refused here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..examples import Example, Image
from ..sources import Row
from .columns import listed
from .conversations import ROLES
from .recognition import OF_A_CHAT, Format
from .templates import ChatTemplate
from .weights import WEIGHTS

IMAGES = {"image", "images"}
OF_A_MESSAGE = {"role", "content", "tool_calls", "from", "value", *WEIGHTS}
OF_A_TEMPLATE = {"history", *OF_A_CHAT}  # columns that say nothing to a model without a chat template


def unread(
    row: Row, format: Format, template: str | None, *, reads_images: bool, follows_weights: bool
) -> tuple[str, ...]:
    """Names of what `row` says and nobody reads, each once; `template` is the chat template's source."""
    read = {*format.columns, *format.optional} | (IMAGES if reads_images else set())
    if template is None:
        read = read - OF_A_TEMPLATE
    names = [f"column {name!r:.60}" for name, value in row.items() if name not in read and _says(value)]
    for message in _messages(row, format.turns):
        if not _is_answer(message):
            names += [f"{key!r} of turns that are no answers" for key in WEIGHTS if message.get(key) is not None]
        names += [
            f"{key!r:.60} of messages"
            for key, value in message.items()
            if isinstance(key, str)
            and _says(value)
            and (key not in OF_A_MESSAGE or (key in WEIGHTS and _is_answer(message) and not follows_weights))
            and (template is None or key in WEIGHTS or key not in template)
        ]
    return tuple(dict.fromkeys(names))


def rendered_before(
    row: Row, columns: Iterable[str], template: ChatTemplate | None, *, strings: Iterable[str] = ()
) -> bool:
    """Whether a turn of `row` holds what `template` opens answers with: it was put through one before.

    Turns stand in `columns`; `strings` are columns each of which becomes a turn itself.
    """
    opens = "" if template is None else template.opens_answer
    said = [message.get(key) for message in _messages(row, columns) for key in ("content", "value")]
    said += [row.get(name) for name in strings]
    return bool(opens) and any(isinstance(text, str) and opens in text for text in said)


def unread_frames(example: Example) -> tuple[str, ...]:
    """The name of what follows the first frame or page of the images in `example`, where anything does."""
    images = [part.image for part in example.parts if isinstance(part, Image)]
    return ("what follows the first frame or page of an image",) if any(one.has_more for one in images) else ()


def _messages(row: Row, columns: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for name in columns:
        turns = listed(row.get(name))
        if isinstance(turns, Sequence) and not isinstance(turns, str):
            yield from (turn for turn in turns if isinstance(turn, Mapping))


def _is_answer(message: Mapping[str, Any]) -> bool:
    role = message.get("role") if message.get("role") is not None else message.get("from")
    return isinstance(role, str) and ROLES.get(role.lower(), role) == "assistant"


def _says(value: Any) -> bool:
    """Whether a value is there at all; 0 and False are, an empty text or list is not."""
    return value is not None and not (isinstance(value, str | list | tuple | dict) and not value)
