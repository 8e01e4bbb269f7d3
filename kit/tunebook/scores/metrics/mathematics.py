"""Answers that are a formula or a number: whether they are equal as mathematics, by math-verify."""

from ..question import Question
from .metric import Metric, NotScored, reference_of
from .optional import optional


def math_equal(reference: str | None = None) -> Metric:
    """Whether the answer comes to what the row's own does: 1/2 is 0.5, and (x+1)^2 is x^2+2x+1.

    `reference` is the column to compare with; None: the row's own answer. Raises ImportError without math-verify.
    """
    library = optional("math_verify", "math_equal")

    def judge(question: Question, answer: str) -> bool:
        # Its time limits are signals, which the main thread alone gets and a notebook's Stop needs.
        wanted = library.parse(reference_of(question, reference), parsing_timeout=None)
        if not wanted:
            raise NotScored("its reference holds nothing that math-verify reads.")
        return library.verify(wanted, library.parse(answer, parsing_timeout=None), timeout_seconds=None)

    return Metric(name="math_equal", judge=judge)
