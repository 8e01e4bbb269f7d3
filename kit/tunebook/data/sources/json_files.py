"""Files of JSON -> rows: an object on every line, or one array of objects, whichever of the suffixes they have.

Lines are parsed once when the file is opened, so that a broken one is found then, and again when they are read; an
array is read whole. Values stay as they are.
"""

import json
from pathlib import Path
from typing import Any

from .places import MOST_REASONS, Broken, row_number
from .rows import Indexed, Picked, Rows
from .shape import DEEPEST, is_too_deep
from .text_files import MOST_KEPT, Found, Line, Records, lines, stamp

_UNESCAPED = json.JSONEncoder(ensure_ascii=False)  # made once, for it is asked about every row


def read_json(path: Path) -> Rows:
    """A file with one array of objects, or with one object per line and perhaps blank lines between them.

    Raises ValueError with the place that is wrong. Lines, or items of the array, that are no objects are `broken` and
    are no rows.
    """
    first = _first_line(path)
    if first.startswith("["):
        return _read_array(path)
    if first == "{":
        raise ValueError(
            f"{path} begins with an object that goes on over several lines; rows are one array of objects, or one "
            "object per line. If a key of it holds the rows, pass rows made by: import json, pathlib; "
            f"rows = json.loads(pathlib.Path({str(path)!r}).read_bytes())[key]"
        )
    return _read_lines(path)


def _first_line(path: Path) -> str:
    """The first line that is not blank, without white space around it; "" when there is none."""
    with path.open("rb") as file:
        return next((line.text.strip() for line in lines(file, path) if not line.text.isspace()), "")


def _read_lines(path: Path) -> Rows:
    found = Found()
    with path.open("rb") as file:
        for line in lines(file, path):
            if line.text.isspace():
                continue
            if wrong := _wrong_line(line):
                found.is_broken(line.number, wrong, line.text)
            else:
                found.record(line.number, line.start)
        return Records(path, stamp(file), found, lambda file: json.loads(file.readline()))


def _wrong_line(line: Line) -> str | None:
    """Why a line is no row; None when it is one."""
    text = line.text.rstrip("\r\n")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return f"not JSON at column {error.colno}: {_said(error, text)}"
    except (RecursionError, ValueError) as error:  # a number of more digits than Python reads
        return f"it {_unread(error)}"
    wrong = _what_is_wrong(value)
    return f"it {wrong}" if wrong else None


def _said(error: json.JSONDecodeError, text: str) -> str:
    """The json module's words, or plainer ones for the slips of a hand."""
    before, here = text[: error.pos].rstrip(), text[error.pos : error.pos + 1]
    behind = text[error.pos + 1 :].strip()
    if (before.endswith(",") and here in ("}", "]")) or (here == "," and behind[:1] in ("}", "]")):
        return "a comma stands before a closing bracket; take the comma out"
    if error.msg == "Extra data" and here == "," and not behind:
        return "a comma stands behind the object; take it out"
    if here in ("'", "\u201c", "\u201d"):
        return f"text stands in {here} and not in double quotes"
    return error.msg


def _read_array(path: Path) -> Rows:
    with path.open("rb") as file:
        text = "".join(line.text for line in lines(file, path))
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and isinstance(json.JSONDecoder().raw_decode(text.lstrip())[0], list):
            raise ValueError(
                f"{path} holds an array on each of several lines; a row is an object. If each is a conversation, pass "
                "rows made by: import json, pathlib; rows = [{'messages': json.loads(line)} for line in "
                f"pathlib.Path({str(path)!r}).read_bytes().splitlines() if line.strip()]"
            ) from None
        raise ValueError(
            f"{path}, line {error.lineno}: not JSON at column {error.colno}: {error.msg}. Correct it there."
        ) from None
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} {_unread(error)}. Correct it there.") from None
    wrong = {index: said for index, value in enumerate(values) if (said := _what_is_wrong(value))}
    rows = Indexed(values, str(path))
    if not wrong:
        return rows
    good = Picked(rows, [index for index in range(len(values)) if index not in wrong])
    good.broken = [
        Broken(
            row_number(index),
            f"it {said}{_where(text, index) if len(wrong) <= MOST_REASONS else ''}",  # many are told by what is wrong
            json.dumps(values[index])[:MOST_KEPT],
        )
        for index, said in wrong.items()
    ]
    return good


def _where(text: str, index: int) -> str:
    line, column = _place(text, index)
    return f" (line {line}, column {column})"


def _place(text: str, index: int) -> tuple[int, int]:
    """(line, column), 1-based, at which element `index` of the array in `text` begins."""
    decode = json.JSONDecoder().raw_decode
    position = _skip(text, text.index("[") + 1)
    for _ in range(index):
        position = _skip(text, decode(text, position)[1])
        position = _skip(text, position + 1)  # the comma
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


def _skip(text: str, position: int) -> int:
    """The first position from `position` on that is no white space."""
    while text[position].isspace():
        position += 1
    return position


def _unread(error: RecursionError | ValueError) -> str:
    """Why JSON that is written as it should be cannot be read."""
    return "is nested too deep" if isinstance(error, RecursionError) else "holds a number of too many digits"


def _what_is_wrong(value: Any) -> str | None:
    """Why a JSON value is no row; None when it is one."""
    if not isinstance(value, dict):
        return f'is {_kind(value)}, not an object such as {{"text": ...}}'
    if is_too_deep(value):
        return f"is nested more than {DEEPEST} levels deep"
    try:
        _UNESCAPED.encode(value).encode()
    except UnicodeEncodeError as error:
        # JSON can write one half of a character that takes two escapes; no tokenizer reads it.
        return f"holds half a character, \\u{ord(error.object[error.start]):04x}"
    return None


def _kind(value: Any) -> str:
    """What JSON calls a value that is no object."""
    if value is None:
        return "null"
    return {list: "an array", str: "a string", bool: "a boolean"}.get(type(value), "a number")
