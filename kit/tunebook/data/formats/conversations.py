"""Rows that hold a conversation: OpenAI's `messages` and ShareGPT's `conversations`.

Both become the messages a chat template takes: role, content as one string, and whatever else the turn carries (tool
calls, a name). Fields that are None are left out, at every depth: Arrow gives each dict the keys of all its siblings,
and templates test for presence. (A null that is meant survives in tool arguments written as JSON text.) Which roles
there may be is for the chat template to say.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..examples import Example
from ..sources import Row
from .columns import BadRow, column, is_missing, listed, shown
from .reading import SPEAKERS, Reading
from .templates import Message, Tools
from .weights import weight_of, without_weights

# ShareGPT's own names for who speaks, and those of sets made after it (Hermes function calling, LLaMA-Factory).
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
}


def read_messages(row: Row, reading: Reading) -> Example:
    """`{"messages": [{"role": ..., "content": ...}, ...]}`, and `tools` where the model may call some."""
    turns = column(row, "messages", list, tuple)
    return reading.chat(with_system(row, as_messages(turns, images=reading.reads_images)), row_tools(row))


def read_sharegpt(row: Row, reading: Reading) -> Example:
    """`{"conversations": [{"from": "human", "value": ...}, ...]}`, or the same with role and content."""
    turns = [_from_sharegpt(turn, number) for number, turn in enumerate(column(row, "conversations", list, tuple))]
    return reading.chat(with_system(row, as_messages(turns, images=reading.reads_images)), row_tools(row))


def with_system(row: Row, messages: list[Message]) -> list[Message]:
    """The conversation behind the row's column `system`. Raises BadRow where it has another system turn of its own."""
    system = row.get("system")
    if is_missing(system) or (isinstance(system, str) and not system):
        return messages
    if not isinstance(system, str):
        raise BadRow(f"its column 'system' is a {type(system).__name__}, not a str.")
    if not messages or messages[0]["role"] not in ("system", "developer"):
        return [{"role": "system", "content": system}, *messages]
    if messages[0].get("content") != system:
        raise BadRow("its column 'system' and its system turn say different things; take one of them out.")
    return messages


def as_messages(turns: Sequence[Any], *, images: bool = False) -> list[Message]:
    """The turns of a conversation as a chat template takes them. Raises BadRow for one that is no message.

    With `images`, content that holds bare `{"type": "image"}` parts stays a list.
    """
    return [_message(turn, number, images=images) for number, turn in enumerate(turns)]


def row_tools(row: Row) -> Tools:
    """The optional column `tools`: a list of JSON schemas, or that list as JSON text; None where there are none."""
    tools = listed(row.get("tools"))
    if isinstance(tools, str) and tools.strip():
        tools = _parsed(tools, "its column 'tools'")
    if tools is None or (isinstance(tools, str | list | tuple | dict | int | float) and not tools):
        return None
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise BadRow("its column 'tools' is not a list of dicts, each the JSON schema of one tool.")
    return _without_none(tools)


def _message(turn: Any, number: int, *, images: bool) -> Message:
    if isinstance(turn, Mapping) and turn.get("role") is None and "from" in turn:
        turn = _from_sharegpt(turn, number)
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        raise BadRow(f"turn {number} is not a dict with 'role' and 'content'.")
    weight = weight_of(turn, number)
    message = {**without_weights(_without_none(turn)), "role": _speaker(turn["role"])}
    if not weight and message["role"] == "assistant":
        message["weight"] = 0  # for `supervise`
    if calls := message.pop("tool_calls", None):
        if not isinstance(calls, list):
            raise BadRow(f"the tool_calls of turn {number} are a {type(calls).__name__}, not a list.")
        message["tool_calls"] = [_tool_call(call, number) for call in calls]
    if "content" in message:
        message["content"] = _content(message["content"], f"{number} ({shown(message['role'])})", images=images)
        if message["role"] == "assistant" and not isinstance(message["content"], str):
            raise BadRow(f"turn {number} is an answer with an image in it, and no model here writes images.")
    elif "function_call" in message and "tool_calls" not in message:
        raise BadRow(
            f"turn {number} has a function_call and no content; write it as tool_calls, "
            '[{"type": "function", "function": {"name": ..., "arguments": ...}}], which is what chat templates read.'
        )
    elif "tool_calls" not in message:
        raise BadRow(f"turn {number} ({shown(message['role'])}) has no 'content'; write it, or drop the row.")
    return message


def _speaker(role: str) -> str:
    """The name of a role as chat templates know it; one nobody knows as it stands."""
    small = role.strip().lower()
    return small if small in SPEAKERS else ROLES.get(small, role)


def _content(content: Any, turn: str, *, images: bool) -> str | list[Any]:
    """A turn's content as one string, its parts joined as they stand; a list while it holds an image."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        what = shown(content) if isinstance(content, int | float) else f"a {type(content).__name__}"
        raise BadRow(f"the content of turn {turn} is {what}, not a string; write it as text, in quotes.")
    for part in content:
        if not isinstance(part, Mapping):
            raise BadRow(f"the content of turn {turn} holds a {type(part).__name__} among its parts.")
        if images and part.get("type") == "image":
            continue
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            reads = "it reads text and images" if images else "this is a text model"
            raise BadRow(f"the content of turn {turn} has a part of type {shown(part.get('type'))}; {reads}.")
    if any(part["type"] == "image" for part in content):
        return [dict(part) for part in content]
    return "".join(part["text"] for part in content)


def _tool_call(call: Any, number: int) -> Mapping[str, Any]:
    """A tool call whose arguments are a dict: OpenAI sends JSON text, which templates would quote a second time."""
    if not isinstance(call, Mapping):
        raise BadRow(f"turn {number} has a tool call that is a {type(call).__name__}, not a dict.")
    if "function" in call:
        return {**call, "function": _tool_call(call["function"], number)}
    if not isinstance(call.get("arguments"), str):
        return call
    arguments = _parsed(call["arguments"] or "{}", f"the arguments of a tool call in turn {number}")
    return {**call, "arguments": arguments}


def _without_none(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list | tuple) else value


def _from_sharegpt(turn: Any, number: int) -> Any:
    if not isinstance(turn, Mapping):
        raise BadRow(f"turn {number} is a {type(turn).__name__}, not a dict with 'from' and 'value'.")
    role, content = (turn.get(new) if turn.get(new) is not None else turn.get(old) for new, old in _SHAREGPT_KEYS)
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if not isinstance(role, str):
        raise BadRow(f"turn {number} has neither 'from' nor 'role'.")
    known = {**rest, "role": ROLES.get(role.lower(), role.lower())}
    return known if content is None else {**known, "content": content}


_SHAREGPT_KEYS = (("role", "from"), ("content", "value"))


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRow(f"{what} are not valid JSON: {error}.") from error
    except (RecursionError, ValueError) as error:  # too deep, or a number of more digits than Python reads
        raise BadRow(f"{what} are JSON that is nested too deep, or has a number of too many digits.") from error
