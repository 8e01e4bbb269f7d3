"""An event as a line of `events.jsonl`, and back: what a newer version says is told apart from what is no event."""

import json
from dataclasses import MISSING, asdict, fields
from enum import StrEnum

from ..settings.json_values import IsOne, check_of, is_int
from .records import (
    CheckpointSaved,
    CommandReceived,
    EvalEvent,
    Event,
    LearningRateChanged,
    Notice,
    RanksEvent,
    RunEnded,
    RunStarted,
    SampleEvent,
    ScoreEvent,
    StepEvent,
    Working,
)


class UnknownEvent(ValueError):
    """A line of a newer version: an event of a kind, or with a named value, that is not known here."""

    def __init__(self, message: str, step: int | None):
        super().__init__(message)
        self.step = step


_KINDS: dict[str, type[Event]] = {
    "run_started": RunStarted,
    "step": StepEvent,
    "eval": EvalEvent,
    "score": ScoreEvent,
    "sample": SampleEvent,
    "notice": Notice,
    "checkpoint_saved": CheckpointSaved,
    "learning_rate_changed": LearningRateChanged,
    "working": Working,
    "command_received": CommandReceived,
    "ranks": RanksEvent,
    "run_ended": RunEnded,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_json(event: Event) -> str:
    """One line of `events.jsonl`. NaN and infinities are written as Python's json does (`NaN`, `Infinity`)."""
    return json.dumps({"event": _NAMES[type(event)], **asdict(event)})


def from_json(line: str) -> Event:
    """The event that `to_json` wrote; fields that only a newer version knows are left aside.

    Raises ValueError for no event or a value of a wrong type; UnknownEvent, which is one, for a kind not known here.
    """
    return parsed(line)[0]


def parsed(line: str) -> tuple[Event, list[str]]:
    """(event, names of fields not known here) of a line. Raises as `from_json` does."""
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:  # of digits without end, of brackets without end
        raise ValueError(f"Not a line of events.jsonl ({error}): {line[:80]!r}") from error
    if not isinstance(given, dict):
        raise ValueError(f"Not a line of events.jsonl (an event is a JSON object): {line[:80]!r}")
    name = given.pop("event", None)
    if not isinstance(name, str):
        raise ValueError(f"Not a line of events.jsonl (it names no event): {line[:80]!r}")
    if name not in _KINDS:
        step = given["step"] if is_int(given.get("step")) else None
        raise UnknownEvent(f"Unknown event {name!r}; this version knows {', '.join(_KINDS)}.", step)
    kind, values = _KINDS[name], {}
    for field_name, is_one, optional in _FIELDS[kind]:
        if field_name not in given:
            if not optional:
                raise ValueError(f"Not the fields of the event {name!r} ({field_name} is missing): {line[:80]!r}")
            continue
        value = given.pop(field_name)
        if not is_one(value):
            raise ValueError(f"Not the fields of the event {name!r} ({field_name} is {value!r:.40}): {line[:80]!r}")
        values[field_name] = value
    for field_name, names in _NAMED.get(kind, {}).items():
        if (value := values[field_name]) not in names:
            raise UnknownEvent(f"{field_name} of the event {name!r} is {value!r:.40}.", values["step"])
        values[field_name] = names[value]
    return kind(**values), list(given)


# Of each kind: the name of a field, whether a value is one of its type, whether it may be missing.
_FIELDS: dict[type[Event], list[tuple[str, IsOne, bool]]] = {
    kind: [
        (f.name, check_of(f.type), f.default is not MISSING or f.default_factory is not MISSING) for f in fields(kind)
    ]
    for kind in _KINDS.values()
}
# Fields whose values have names; a newer version may have more of them.
_NAMED: dict[type[Event], dict[str, dict[str, StrEnum]]] = {
    kind: {
        f.name: {one.value: one for one in f.type}
        for f in fields(kind)
        if isinstance(f.type, type) and issubclass(f.type, StrEnum)
    }
    for kind in _KINDS.values()
}
