"""What a metric is: a name, what it wants of the model, and a function that judges one row.

    Metric(name="short", judge=lambda question, answer: len(answer) < 80)

To add one, write a function that gives a `Metric`, into a file beside this one, and an entry in `METRICS`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from ..question import Likelihood, Question
from ..statistics import Total, mean_of_rows

# The text the model writes; how likely it finds the row's own answer; or the texts that the function gives of a row.
Asks = Literal["answer", "reference"] | Callable[[Question], Sequence[str]]
Value = bool | float


@dataclass(frozen=True)
class Terms:
    """A row's value, and what the score is made of instead of a mean: terms that are summed over rows."""

    value: Value
    terms: tuple[float, ...]


class NotScored(ValueError):
    """Raised by a metric for a row it cannot judge, such as one without a reference. Such a row is never wrong."""


@final
@dataclass(frozen=True, kw_only=True)
class Metric:
    """A way to judge a row; `judge` is given a str where an answer was asked for, else a Likelihood for each text."""

    name: str
    judge: Callable[[Question, Any], Value | Terms]
    asks: Asks = "answer"
    total: Total = mean_of_rows  # sums (..., K) of the rows' terms -> score; of values it is their mean
    higher_is_better: bool = True
    concerns: Callable[[Mapping[str, Any]], bool] | None = None  # the rows it is for, and no other is asked; None: all

    def is_for(self, row: Mapping[str, Any]) -> bool:
        """Whether it judges this row."""
        return self.concerns is None or self.concerns(row)


@dataclass(frozen=True)
class Mark:
    """What one metric says of one row."""

    value: float | None  # None: not scored
    terms: tuple[float, ...] = ()
    reason: str = ""  # why it is not scored


def marked(metric: Metric, question: Question, reply: str | Sequence[Likelihood] | NotScored) -> Mark:
    """What `metric` makes of a reply. A row that it raises for, or gives no finite number for, is not scored."""
    if isinstance(reply, NotScored):
        return Mark(None, reason=str(reply))
    if not isinstance(reply, str) and any(math.isnan(one.nats) for one in reply):
        return Mark(None, reason="the model gives no number for how likely a text is; its weights may be broken.")
    try:
        found = metric.judge(question, reply)
    except NotScored as error:
        return Mark(None, reason=str(error))
    except Exception as error:  # noqa: BLE001 - a stranger's program may raise anything, and the other rows still count
        return Mark(None, reason=f"{metric.name} raised {type(error).__name__}: {error}")
    terms = found if isinstance(found, Terms) else Terms(found, ())
    try:
        value = float(terms.value)
    except (TypeError, ValueError, OverflowError):
        return Mark(None, reason=f"{metric.name} gave {terms.value!r:.60}, which is no number.")
    if not math.isfinite(value):
        return Mark(None, reason=f"{metric.name} gave {value}, which is not finite.")
    return Mark(value, terms.terms or (value, 1.0))


def reference_of(question: Question, column: str | None = None) -> str:
    """What was to be answered: the row's own answer, or what stands in `column`. Raises NotScored where nothing is."""
    if column is None:
        if question.reference is None:
            raise NotScored("the row has no answer to compare with; name its column.")
        return question.reference
    return str(value_of(question.row, column))


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """What stands in a column. Raises NotScored where nothing does."""
    value = row.get(column)
    if value is None:
        raise NotScored(f"the row has no {column!r}; its columns are {', '.join(map(str, row))}.")
    return value
