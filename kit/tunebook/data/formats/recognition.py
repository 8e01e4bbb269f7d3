"""The formats there are, and which of them a set of rows has: told from the columns of all rows together.

To add a format, write the function that reads one row of it into a file beside this one, and add an entry to FORMATS.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..examples import Example
from ..sources import Row
from .columns import BadRow, NoFormat, listed
from .completions import read_alpaca, read_prompt_completion
from .conversations import read_messages, read_sharegpt
from .likely import meant, misspelt
from .mends import formatting_all, passed
from .plain import read_text, read_tokens
from .reading import Reading
from .templates import printable

OF_A_CHAT = ("system", "tools")  # optional columns of whatever becomes a conversation
MOST_NAMED = 20  # columns in a message
PAIR = {"chosen", "rejected"}  # two answers to compare, which an objective reads


@dataclass(frozen=True)
class Format:
    """A kind of row: its columns, and how one row is read. Images may stand in those of `turns` and `texts`."""

    columns: tuple[str, ...]  # every row has them, and is recognised by them
    read: Callable[[Row, Reading], Example]
    optional: tuple[str, ...] = ()  # read where a row has them
    turns: tuple[str, ...] = ()  # which of both may be a list of turns
    texts: tuple[str, ...] = ()  # and which are a text with placeholders
    exchange: tuple[str, ...] = ()  # whose strings become turns where the model has a template for them


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), read_messages, optional=OF_A_CHAT, turns=("messages",)),
    "sharegpt": Format(("conversations",), read_sharegpt, optional=OF_A_CHAT, turns=("conversations",)),
    "prompt_completion": Format(
        ("prompt", "completion"),
        read_prompt_completion,
        optional=OF_A_CHAT,
        turns=("prompt", "completion"),
        exchange=("prompt", "completion"),
    ),
    "alpaca": Format(
        ("instruction", "output"),
        read_alpaca,
        optional=("input", "history", *OF_A_CHAT),
        texts=("instruction", "input"),
        exchange=("instruction", "input", "output"),
    ),
    "text": Format(("text",), read_text, texts=("text",)),
    "tokens": Format(("input_ids",), read_tokens, optional=("labels", "attention_mask")),
}


def recognise(rows: Iterable[Row]) -> str:
    """The one format every row has the columns of, or most of them have, in one pass that keeps one row.

    Rows without the columns of most are for `check_columns` to name. Raises NoFormat with what the columns are likely
    meant for when no format, or several, is that of most rows.
    """
    counts: Counter[str] = Counter()
    columns: Counter[str] = Counter()
    first: Row = {}
    total = 0
    for row in rows:
        first = first or row
        total += 1
        columns.update(name for name in row if row[name] is not None)
        counts.update(name for name, kind in FORMATS.items() if _has_columns(row, kind))
    complete = [name for name, count in counts.items() if count == total]
    most = complete or [name for name, count in counts.items() if 2 * count > total]
    if len(most) == 1:
        return most[0]
    seen = ", ".join(f"{count} of {total} look like '{name}'" for name, count in counts.most_common()) or "none fits"
    start = f"Cannot tell the format of these rows: {seen}. Their columns are {_named(set(columns))}"
    if most:
        choices = " or ".join(f"format={name!r}" for name in most)
        raise NoFormat(f"{start}. Pass {choices}: several fit, and one is to be chosen.")
    if counts:
        apart = f"[row for row in rows if row.get({FORMATS[counts.most_common(1)[0][0]].columns[0]!r})]"
        raise NoFormat(
            f"{start}. Train on rows of one format, such as {apart}, or write formatting_func=... that makes them one."
        )
    said, *mending = _meant(first)
    raise NoFormat(f"{start}{said}", *mending)


def check_columns(row: Row, kind: Format) -> None:
    """Raise BadRow for a row that lacks columns of its set's format, with what it has in their place."""
    missing = [name for name in kind.columns if row.get(name) is None]
    if not missing:
        return
    lacks = " and ".join(map(repr, missing))
    if found := misspelt(row, kind.columns, kind.optional):
        spelt, mend = found
        renamed = " and ".join(f"rename {other!r} to {name!r}" for name, other in spelt.items())
        raise BadRow(f"it has no {lacks}; {renamed}.", mend)
    if proposed := meant(row, kind.columns):
        what, mend = proposed
        raise BadRow(f"it has {what} in place of {lacks}; formatting_func can make it one, or drop it.", mend)
    if all(name in row for name in missing):
        raise BadRow(f"its column {lacks} has no value; fill it in, or drop the row.")
    other = next((name for name, other in FORMATS.items() if _has_columns(row, other)), None)
    looks = f" and looks like '{other}', which format={other!r} reads" if other else ""
    raise BadRow(f"it has no {lacks}{looks}; its columns are {_named(set(row))}. Give it that column, or drop it.")


def format_named(name: str) -> Format:
    """The format of that name. Raises ValueError with the names there are."""
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _meant(row: Row) -> tuple[str, ...]:
    """(what to do about rows of no format, of which `row` is one; the arguments that do it, each alone)."""
    if set(row) in ({"role", "content"}, {"from", "value"}):
        return (". Each row is one turn of a conversation; pass all of them as one row: [{'messages': list(rows)}]",)
    for kind in FORMATS.values():
        if found := misspelt(row, kind.columns, kind.optional):
            renamed = " and ".join(f"{other!r} for {name!r}" for name, other in found[0].items())
            mending = formatting_all(found[1])
            return f". If that is {renamed}, {passed(mending)}", mending
    if proposed := meant(row):
        mending = formatting_all(proposed[1])
        objective = ["objective=tunebook.objectives.DPO()"] if set(row) >= PAIR else []
        both = "".join(f"; to learn from both answers, import tunebook and pass {each}" for each in objective)
        return f"{both}. If what is meant is in {proposed[0]}, {passed(mending)}", *objective, mending
    within = next((name for name, value in row.items() if _is_rows(value)), None)
    if within is not None:
        return (f". If {within!r} holds the rows, pass rows[0][{within!r}] of rows = read_rows(...)",)
    known = "; ".join(f"{name}: {', '.join(kind.columns)}" for name, kind in FORMATS.items())
    move = "Write formatting_func=lambda row: ... that makes a row one of these."
    return (f"; the formats and their columns are {known}. {move}",)


def _is_rows(value: Any) -> bool:
    rows = listed(value)
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], Mapping)


def _named(columns: set[str]) -> str:
    """The names of columns, at a length to read."""
    more = f" and {len(columns) - MOST_NAMED} more" if len(columns) > MOST_NAMED else ""
    return ", ".join(printable(str(name), 40) for name in sorted(columns, key=str)[:MOST_NAMED]) + more or "none"


def _has_columns(row: Row, kind: Format) -> bool:
    return all(row.get(column) is not None for column in kind.columns)
