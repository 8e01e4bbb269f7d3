"""Marks as an exam would give them, made by hand: what each row is worth is known before."""

from collections.abc import Sequence

from tunebook import scores
from tunebook.scores.marks import Answered
from tunebook.scores.metrics import Mark
from tunebook.scores.metrics.perplexity import perplexity

RIGHT = scores.exact_match()
GRADED = scores.Metric(name="graded", judge=lambda *_: 0.0)


def marks(
    name: str,
    right: Sequence[float | None],
    graded: Sequence[float | None] | None = None,
    *,
    answers: Sequence[str | None] | None = None,
    prompts: Sequence[str] | None = None,
    references: Sequence[str | None] | None = None,
    cut: Sequence[int] = (),
    why: str = "no <b>reason</b>",
    exam: str = "one",
) -> scores.Marks:
    """A row for each of `right`, its value in exact_match; None is not scored. `graded` are of a second metric."""

    def mark(value: float | None) -> Mark:
        return Mark(None, reason=why) if value is None else Mark(float(value), (float(value), 1.0))

    rows = []
    for number, value in enumerate(right):
        found = {"exact_match": mark(value)} | ({"graded": mark(graded[number])} if graded is not None else {})
        rows.append(
            Answered(
                number=number,
                prompt=prompts[number] if prompts else f"What is {number}?",
                reference=references[number] if references else f"it is {number}",
                answer=answers[number] if answers else f"{name} says {number}",
                ended=number not in cut,
                marks=found,
            )
        )
    metrics = (RIGHT, GRADED) if graded is not None else (RIGHT,)
    return scores.Marks(name=name, exam=exam, metrics=metrics, rows=tuple(rows))


def surprised(name: str, values: Sequence[float]) -> scores.Marks:
    """Marks in perplexity alone, of which less is better; nothing was written."""
    rows = tuple(
        Answered(number=number, prompt="", reference="a", answer=None, marks={"perplexity": Mark(value, (value, 1.0))})
        for number, value in enumerate(values)
    )
    return scores.Marks(name=name, exam="one", metrics=(perplexity(),), rows=rows)
