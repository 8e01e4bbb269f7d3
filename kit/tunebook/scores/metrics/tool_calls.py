"""Answers that call tools: whether they name the right ones, with the right arguments.

A call is a JSON object with a name and its arguments, wherever it stands in the answer: in the tags of Hermes and Qwen,
behind Mistral's [TOOL_CALLS], bare as Llama 3.1 has it, or in a list.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..question import Question
from .metric import Metric, NotScored

ARGUMENTS = ("arguments", "parameters")  # of OpenAI and Hermes; of Llama 3.1
Call = tuple[str, Any]


def tool_call(*, arguments: bool = True) -> Metric:
    """Whether the answer calls the tools that the row's own answer does, in any order, and no others.

    With `arguments`, with the same ones too. The row's calls are those of its last turn's `tool_calls`, or are read in
    its answer as the model's are. A row that calls none is right where the answer calls none.
    """

    def judge(question: Question, answer: str) -> bool:
        return _comparable(calls_in(answer), arguments) == _comparable(_wanted(question), arguments)

    return Metric(name="tool_call" if arguments else "tool_name", judge=judge)


def calls_in(text: str) -> list[Call]:
    """(name, arguments) of each call in a text, in order."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while (start := _next_bracket(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1
            continue
        found += _calls(value)
    return found


def _next_bracket(text: str, at: int) -> int | None:
    return min((place for place in (text.find("{", at), text.find("[", at)) if place >= 0), default=None)


def _calls(value: Any) -> Iterator[Call]:
    """The calls a JSON value is: one, or a list of them."""
    if isinstance(value, list):
        for inner in value:
            yield from _calls(inner)
    if not isinstance(value, Mapping):
        return
    called = value.get("function", value)
    called = called if isinstance(called, Mapping) else value
    given = next((called[name] for name in ARGUMENTS if name in called), None)
    if isinstance(called.get("name"), str) and given is not None:
        yield called["name"], _read(given)


def _read(arguments: Any) -> Any:
    """Arguments as values: OpenAI sends them as JSON text."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _wanted(question: Question) -> list[Call]:
    turns = question.row.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else {}
    if calls := last.get("tool_calls"):
        return list(_calls(list(calls)))
    if question.reference is None:
        raise NotScored("the row has no answer to compare with.")
    return calls_in(question.reference)


def _comparable(calls: list[Call], arguments: bool) -> list[str]:
    """Calls as texts to compare, in an order of their own."""
    return sorted(json.dumps([name, given if arguments else None], sort_keys=True) for name, given in calls)
