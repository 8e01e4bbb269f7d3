"""Answers that come to a number: the last one in the text, as GSM8K's answers are read."""

import math
import re

from ..question import Question
from .metric import Metric, NotScored, reference_of

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?")


def numeric(tolerance: float = 1e-6, *, relative: float = 0.0, reference: str | None = None) -> Metric:
    """Whether the last number in the answer is the last of the row's own answer, or of the column `reference`.

    It may be off by `tolerance`, or by `relative` times the reference, whichever is more. Thousands may be parted by
    commas. An answer without a number is wrong.
    """

    def judge(question: Question, answer: str) -> bool:
        wanted = last_number(reference_of(question, reference))
        if wanted is None:
            raise NotScored("its reference holds no number.")
        found = last_number(answer)
        return found is not None and math.isclose(found, wanted, rel_tol=relative, abs_tol=tolerance)

    return Metric(name="numeric", judge=judge)


def last_number(text: str) -> float | None:
    """The last number in a text; None where there is none."""
    found = NUMBER.findall(text.replace("−", "-"))
    return float(found[-1].replace(",", "")) if found else None
