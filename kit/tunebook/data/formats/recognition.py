"""The formats there are, and which of them a set of rows has: told from the columns of all rows together.

To add a format, write the function that reads one row of it into a file beside this one, and add an entry to FORMATS.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..examples import Example
from ..sources import Row
from .completions import read_alpaca, read_prompt_completion
from .conversations import read_messages, read_sharegpt
from .plain import read_text, read_tokens
from .reading import Reading
from .templates import printable

OF_A_CHAT = ("system", "tools")  # optional columns of whatever becomes a conversation
MOST_NAMED = 20  # columns in a message


@dataclass(frozen=True)
class Format:
    """A kind of row: its columns, and how one row is read. Images may stand in those of `turns` and `texts`."""

    columns: tuple[str, ...]  # every row has them, and is recognised by them
    read: Callable[[Row, Reading], Example]
    optional: tuple[str, ...] = ()  # read where a row has them
    turns: tuple[str, ...] = ()  # which of both may be a list of turns
    texts: tuple[str, ...] = ()  # and which are a text with placeholders


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), read_messages, optional=OF_A_CHAT, turns=("messages",)),
    "sharegpt": Format(("conversations",), read_sharegpt, optional=OF_A_CHAT, turns=("conversations",)),
    "prompt_completion": Format(
        ("prompt", "completion"), read_prompt_completion, optional=OF_A_CHAT, turns=("prompt", "completion")
    ),
    "alpaca": Format(
        ("instruction", "output"),
        read_alpaca,
        optional=("input", "history", *OF_A_CHAT),
        texts=("instruction", "input"),
    ),
    "text": Format(("text",), read_text, texts=("text",)),
    "tokens": Format(("input_ids",), read_tokens, optional=("labels", "attention_mask")),
}


def recognise(rows: Iterable[Row]) -> str:
    """The one format every row has the columns of, in one pass that keeps no row.

    Raises ValueError with the counts of each when there is not exactly one.
    """
    counts: Counter[str] = Counter()
    columns: set[str] = set()
    total = 0
    for row in rows:
        total += 1
        columns.update(row)
        counts.update(name for name, kind in FORMATS.items() if _has_columns(row, kind))
    complete = [name for name, count in counts.items() if count == total]
    if len(complete) == 1:
        return complete[0]
    known = "; ".join(f"{name}: {', '.join(kind.columns)}" for name, kind in FORMATS.items())
    seen = ", ".join(f"{count} of {total} look like '{name}'" for name, count in counts.most_common()) or "none fits"
    raise ValueError(
        f"Cannot tell the format of these rows: {seen}. Their columns are {_named(columns)}; the "
        f"formats and their columns are {known}. Pass format='...' to choose one, or formatting_func=... to make one."
    )


def format_named(name: str) -> Format:
    """The format of that name. Raises ValueError with the names there are."""
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _named(columns: set[str]) -> str:
    """The names of columns, at a length to read."""
    more = f" and {len(columns) - MOST_NAMED} more" if len(columns) > MOST_NAMED else ""
    return ", ".join(printable(str(name), 40) for name in sorted(columns, key=str)[:MOST_NAMED]) + more or "none"


def _has_columns(row: Row, kind: Format) -> bool:
    return all(row.get(column) is not None for column in kind.columns)
