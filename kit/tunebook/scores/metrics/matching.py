"""Answers that are to be one text: letter for letter, but for spelling, or as a pattern has it."""

import re
import unicodedata

from ..question import Question
from .metric import Metric, reference_of

ARTICLES = re.compile(r"\b(a|an|the)\b")


def exact_match(reference: str | None = None) -> Metric:
    """Whether the answer is the row's own, but for spaces around it. `reference` is a column to compare with instead.

    >>> scores.exact_match(reference="answer").name
    'exact_match'
    """

    def judge(question: Question, answer: str) -> bool:
        return answer.strip() == reference_of(question, reference).strip()

    return Metric(name="exact_match", judge=judge)


def normalised_match(reference: str | None = None) -> Metric:
    """As `exact_match`, without case, punctuation, English articles and how much space there is.

    The rules of SQuAD's evaluation (Rajpurkar et al., 2016), with the punctuation of every script.
    """

    def judge(question: Question, answer: str) -> bool:
        return normalised(answer) == normalised(reference_of(question, reference))

    return Metric(name="normalised_match", judge=judge)


def matches(pattern: str, *, reference: str | None = None, flags: int = 0, name: str = "matches") -> Metric:
    """Whether `pattern`, a regular expression, is found in the answer.

    With a group in it, whether what the last find has there is the row's own answer, or what stands in the column
    `reference`: `matches(r"#### (-?\\d+)")`. An answer it is not found in is wrong. `flags` are those of `re`.
    """
    compiled = re.compile(pattern, flags)

    def judge(question: Question, answer: str) -> bool:
        found = list(compiled.finditer(answer))
        if not compiled.groups:
            return bool(found)
        wanted = reference_of(question, reference).strip()
        return bool(found) and (found[-1][1] or "").strip() == wanted

    return Metric(name=name, judge=judge)


def normalised(text: str) -> str:
    """`text` as `normalised_match` compares it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(" " if unicodedata.category(letter).startswith("P") else letter for letter in folded)
    return " ".join(ARTICLES.sub(" ", bare).split())
