"""Columns nobody named for this kit -> the format they are likely meant for, and how a row of it is made of them.

Only names are compared, and a value looked at where a name can mean two things. Proposals are said, never followed.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from ..sources import Row
from .columns import listed
from .mends import Mend, has_but_lacks

ASKED = ("question", "query", "user", "human", "problem", "request", "prompt", "instruction", "input", "q", "source")
ANSWERED = ("answer", "response", "reply", "assistant", "completion", "output", "solution", "bot", "gpt", "agent")
ANSWERED += ("chosen", "a", "target")
GIVEN = ("context", "passage", "background", "input")  # what a question is about
TURNS = ("dialogue", "dialog", "chat", "conversation", "turns", "history", "convo", "conv")
TEXTS = ("content", "body", "document", "article", "story", "passage", "sentence", "raw_text")
SPOKEN = (("role", "content"), ("from", "value"), ("speaker", "text"), ("role", "text"), ("speaker", "content"))


def near_spelling(wanted: str, columns: Collection[str]) -> str | None:
    """The one of `columns` that is `wanted`, misspelt; None where none is near."""
    plain = {name.strip().lower(): name for name in columns}
    close = get_close_matches(wanted, plain, n=1, cutoff=0.8)
    return plain[close[0]] if close else None


def misspelt(row: Row, wanted: tuple[str, ...], optional: tuple[str, ...]) -> tuple[dict[str, str], Mend] | None:
    """({column: how it is spelt}, the mend) of a row that lacks columns of a format by their spelling alone."""
    others = [name for name in row if name not in (*wanted, *optional)]
    spelt = {name: near_spelling(name, others) for name in wanted if row.get(name) is None}
    found = {name: other for name, other in spelt.items() if other is not None and row.get(other) is not None}
    if not found or len(found) < len(spelt):
        return None
    kept = {name: found.get(name, name) for name in (*wanted, *(name for name in optional if name in row))}
    makes = ", ".join(f"{name!r}: row[{spelling!r}]" for name, spelling in kept.items())
    lacks, has = next(iter(found.items()))
    return found, Mend(has_but_lacks(has, lacks), f"{{{makes}}}")


def meant(row: Row, wanted: tuple[str, ...] | None = None) -> tuple[str, Mend] | None:
    """(the columns that are meant, the mend) of a row of other names; None where nothing is likely.

    The row is made one with the columns `wanted` where those are known, else one of the format that suits it.
    """
    lacks = next((name for name in wanted or () if row.get(name) is None), None)
    lower = {name.strip().lower(): name for name in row if row[name] is not None}
    pair = _pair(lower)
    if pair is not None and wanted != ("text",):
        asked, answered = pair
        made = _exchange(row, asked, answered, lower, wanted)
        return f"{asked!r} and {answered!r}", Mend(has_but_lacks(asked, lacks), made)
    turns = next((lower[name] for name in TURNS if name in lower and _spoken(row[lower[name]])), None)
    if turns is not None and wanted in (None, ("messages",), ("conversations",)):
        return repr(turns), Mend(has_but_lacks(turns, lacks), f"{{'messages': {_turns(row[turns], turns)}}}")
    text = next((lower[name] for name in TEXTS if name in lower and isinstance(row[lower[name]], str)), None)
    if text is not None and wanted in (None, ("text",)):
        return repr(text), Mend(has_but_lacks(text, lacks), f"{{'text': row[{text!r}]}}")
    return None


def _pair(lower: Mapping[str, str]) -> tuple[str, str] | None:
    """The columns of a question and its answer."""
    asked = next((lower[name] for name in ASKED if name in lower), None)
    answered = next((lower[name] for name in ANSWERED if name in lower), None)
    return None if asked is None or answered is None else (asked, answered)


def _exchange(row: Row, asked: str, answered: str, lower: Mapping[str, str], wanted: tuple[str, ...] | None) -> str:
    """A question and its answer as a row of a format."""
    question, answer = f"row[{asked!r}]", f"row[{answered!r}]"
    if spoken := _spoken(row[answered]):
        role, said = spoken
        if listed(row[answered])[0][role] not in ("assistant", "gpt"):  # whole conversations, their question in them
            return f"{{'messages': {answer}}}"
        if _spoken(row[asked]):
            return f"{{'prompt': {question}, 'completion': {answer}}}"
        return f"{{'messages': [{{{role!r}: 'user', {said!r}: {question}}}, *{answer}]}}"
    given = next((lower[name] for name in GIVEN if name in lower and lower[name] not in (asked, answered)), None)
    if wanted in (("messages",), ("conversations",)):
        if given is not None:
            question = f"row[{given!r}] + '\\n\\n' + {question}"
        turns = f"{{'role': 'user', 'content': {question}}}, {{'role': 'assistant', 'content': {answer}}}"
        return f"{{'{wanted[0]}': [{turns}]}}"
    if wanted == ("instruction", "output") or (wanted is None and given is not None):
        more = "" if given is None else f"'input': row[{given!r}], "
        return f"{{'instruction': {question}, {more}'output': {answer}}}"
    return f"{{'prompt': {question}, 'completion': {answer}}}"


def _spoken(value: Any) -> tuple[str, str] | None:
    """What turns call who speaks and what is said; None for what is no list of turns."""
    turns = listed(value)
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], Mapping):
        return None
    first = turns[0]
    return next((names for names in SPOKEN if all(name in first for name in names)), None)


def _turns(value: Any, column: str) -> str:
    names = _spoken(value)
    if names is None or names in SPOKEN[:2]:
        return f"row[{column!r}]"
    role, said = names
    return f"[{{'role': turn[{role!r}], 'content': turn[{said!r}]}} for turn in row[{column!r}]]"
