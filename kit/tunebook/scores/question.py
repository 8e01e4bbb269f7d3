"""A row of an exam as its metrics see it: what was asked, what was to be answered, and the row as it came."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data.examples import Example


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row of an exam."""

    number: int  # of the row among those of the exam
    prompt: str  # as a reader should see it
    reference: str | None  # the row's own answer, without the tokens that end it; None: it has none
    row: Mapping[str, Any]  # as it came
    asked: Example  # as the model reads it, up to where it begins to write
    whole: Example | None = None  # with the row's own answer behind it, supervised; None: it has none


@dataclass(frozen=True)
class Likelihood:
    """What a model says of a text that may follow a prompt."""

    text: str
    nats: float  # the logarithm of its probability, 0 at most
    tokens: int
    is_greedy: bool  # whether the model would write just this, taking the likeliest token each time
