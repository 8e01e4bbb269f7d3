"""The records a run emits, and what it is asked: every wing may import them from here, and so may the widgets.

`records.py` has the events and the commands, `lines.py` the line each event is in `events.jsonl`. They hold plain
Python numbers and strings; nothing here needs MLX.
"""

from .lines import UnknownEvent, from_json, parsed, to_json
from .records import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EndReason,
    EvalEvent,
    Event,
    LearningRateChanged,
    Notice,
    RanksEvent,
    Request,
    RunEnded,
    RunStarted,
    SampleEvent,
    ScoreEvent,
    StepEvent,
    Working,
)

__all__ = [
    "CheckpointSaved",
    "Command",
    "CommandReceived",
    "EndReason",
    "EvalEvent",
    "Event",
    "LearningRateChanged",
    "Notice",
    "RanksEvent",
    "Request",
    "RunEnded",
    "RunStarted",
    "SampleEvent",
    "ScoreEvent",
    "StepEvent",
    "UnknownEvent",
    "Working",
    "from_json",
    "parsed",
    "to_json",
]
