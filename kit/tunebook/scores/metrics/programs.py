"""A person's own judgement: a function of a prompt, an answer and the row."""

from collections.abc import Callable, Mapping
from typing import Any

from .metric import Metric

Program = Callable[[str, str, Mapping[str, Any]], Any]


def program(fn: Program, name: str | None = None, *, higher_is_better: bool = True) -> Metric:
    """`fn(prompt, answer, row) -> float | bool` as a metric, called `name` or as the function is.

    `prompt` is the question as a reader sees it, `row` the row as it came. A row for which it raises is not scored.
    """
    called = name or fn.__name__
    if called == "<lambda>":
        raise ValueError("A lambda has no name to show; pass scores.program(fn, name='...').")
    return Metric(
        name=called,
        judge=lambda question, answer: fn(question.prompt, answer, question.row),
        higher_is_better=higher_is_better,
    )
