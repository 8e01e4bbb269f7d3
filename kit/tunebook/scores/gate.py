"""A gate for CI: one exam of one model, what is asked of its scores, and the sentences of what does not hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from .exam import Asked, Exam
from .marks import Marks, ScoreTooLow, check_bounds


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What `gate` found: it holds where there are no failures."""

    marks: Sequence[Marks]  # of the model, and before it of its base where both are compared
    failures: Sequence[str]


def gate(
    model: Asked,
    exam: Exam,
    *,
    name: str | None = None,
    fail_below: float | None = None,
    better_than_base: bool = False,
    by: float = 0.0,
    batch_size: int = 8,
) -> Gate:
    """Take `exam` and ask of its first metric what `Marks.require` does.

    `fail_below` is the least score (the most, where less is better); `better_than_base` takes the exam without adapters
    too and asks for a gain of `by` or more that is no chance. Rows that a metric could not judge fail it, too. `name`
    is what the marks are called; `batch_size` rows are asked at a time. `model` may be an export, as `Exam.take` has
    it; only one of adapters has a base to be better than. Raises ValueError as `check_bounds`,
    before anything is asked.
    """
    check_bounds(at_least=fail_below, by=by, compared=better_than_base)
    marks = exam.take(model, name=name, batch_size=batch_size)
    base = exam.take(model, adapters=False, batch_size=batch_size) if better_than_base else None
    failures = []
    for wanted in ({"at_least": fail_below}, {"better_than": base, "by": by}):
        try:
            marks.require(**wanted)  # type: ignore[arg-type]
        except ScoreTooLow as error:
            failures.append(str(error))
    return Gate(marks=[marks] if base is None else [base, marks], failures=list(dict.fromkeys(failures)))
