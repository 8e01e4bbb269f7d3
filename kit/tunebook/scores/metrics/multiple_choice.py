"""Questions with choices: the model takes the one it finds likeliest, and writes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..question import Likelihood, Question
from .metric import Metric, NotScored, value_of


def multiple_choice(
    choices: str = "choices",
    answer: str = "answer",
    *,
    per: Literal["choice", "token", "character"] = "choice",
    before: str = "",
) -> Metric:
    """Whether the likeliest of the row's `choices` is its `answer`; both are names of columns.

    The answer is a text that is among the choices, its place (0 the first), or its letter or label: a column of choices
    may be a list, or ARC's {"text": [...], "label": [...]}. `before` is put before each choice, such as the space that
    a text without a chat template goes on with. The likelihood is that of the whole choice (lm-eval's `acc`), or is
    divided by its tokens or its characters (`acc_norm`), so that long choices are not put at a disadvantage.
    """

    def texts(question: Question) -> list[str]:
        return [before + text for text in _texts(value_of(question.row, choices), choices)]

    def judge(question: Question, likelihoods: Sequence[Likelihood]) -> bool:
        lengths = [_length(likelihood, per, len(before)) for likelihood in likelihoods]
        taken = int(np.argmax([one.nats / length for one, length in zip(likelihoods, lengths, strict=True)]))
        return taken == right_choice(value_of(question.row, choices), value_of(question.row, answer))

    name = "multiple_choice" if per == "choice" else f"multiple_choice_per_{per}"
    return Metric(name=name, judge=judge, asks=texts)


def right_choice(choices: Any, answer: Any) -> int:
    """The place of the answer among the choices. Raises NotScored where it is not among them."""
    texts = _texts(choices, "choices")
    labels = list(choices["label"]) if isinstance(choices, Mapping) else []
    if isinstance(answer, int | np.integer) and not isinstance(answer, bool) and 0 <= answer < len(texts):
        return int(answer)
    if isinstance(answer, str):
        stripped = answer.strip()
        for known in (texts, labels, _letters(len(texts)), [str(place) for place in range(len(texts))]):
            if known.count(stripped) == 1:
                return known.index(stripped)
    raise NotScored(f"its answer {answer!r:.40} is none of its {len(texts)} choices, nor the place or letter of one.")


def _texts(choices: Any, column: str) -> list[str]:
    given = choices.get("text") if isinstance(choices, Mapping) else choices
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if not isinstance(given, list | tuple) or len(given) < 2:
        raise NotScored(f"its {column!r} is no list of two choices or more.")
    return [str(choice) for choice in given]


def _letters(count: int) -> list[str]:
    return [chr(ord("A") + place) for place in range(count)]


def _length(likelihood: Likelihood, per: str, before: int) -> int:
    return {"choice": 1, "token": likelihood.tokens, "character": len(likelihood.text) - before}[per]
