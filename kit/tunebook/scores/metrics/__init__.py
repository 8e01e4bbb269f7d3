"""Ways to judge a model's answers, side by side: each a function that gives a `Metric`.

`metric.py` says what that is. `METRICS` has those that need no argument by their names, which is how a command line
asks for them; a function of one's own is one by itself (`programs.py`).
"""

from collections.abc import Callable, Sequence

from .json_answers import json_match, json_schema, valid_json
from .matching import exact_match, matches, normalised_match
from .mathematics import math_equal
from .metric import Mark, Metric, NotScored, Terms, marked
from .multiple_choice import multiple_choice
from .numbers import numeric
from .overlap import bleu, chrf
from .perplexity import byte_perplexity, perplexity
from .programs import Program, program
from .tool_calls import tool_call

METRICS: dict[str, Callable[[], Metric]] = {
    "exact_match": exact_match,
    "normalised_match": normalised_match,
    "numeric": numeric,
    "valid_json": valid_json,
    "json_match": json_match,
    "tool_call": tool_call,
    "multiple_choice": multiple_choice,
    "bleu": bleu,
    "chrf": chrf,
    "math_equal": math_equal,
    "perplexity": perplexity,
    "byte_perplexity": byte_perplexity,
}

__all__ = [
    "METRICS",
    "Mark",
    "Metric",
    "NotScored",
    "Program",
    "Terms",
    "as_metrics",
    "bleu",
    "byte_perplexity",
    "chrf",
    "exact_match",
    "json_match",
    "json_schema",
    "marked",
    "matches",
    "math_equal",
    "multiple_choice",
    "normalised_match",
    "numeric",
    "perplexity",
    "program",
    "tool_call",
    "valid_json",
]


def as_metrics(given: Sequence[str | Metric | Program]) -> tuple[Metric, ...]:
    """Metrics, their names, and functions of one's own, as metrics. Raises ValueError for what is none of these."""
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ValueError(f"metrics is {given!r:.60}; pass a list, such as ['exact_match'] or [my_function].")
    metrics = tuple(_as_metric(one) for one in given)
    names = [metric.name for metric in metrics]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"Two metrics are called {twice[0]!r}; give one another name.")
    return metrics


def _as_metric(given: str | Metric | Program) -> Metric:
    if isinstance(given, Metric):
        return given
    if isinstance(given, str):
        if given not in METRICS:
            raise ValueError(f"There is no metric {given!r}; there are {', '.join(METRICS)}, and functions of yours.")
        return METRICS[given]()
    if callable(given):
        return program(given)
    raise ValueError(f"{given!r:.60} is no metric; pass a name, a scores.Metric or a function.")
