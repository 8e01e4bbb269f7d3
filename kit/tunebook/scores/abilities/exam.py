"""The exam of general abilities: which there are, how many rows of each, and what judges them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any

from ..exam import Exam
from ..metrics import Metric, byte_perplexity, multiple_choice, program
from .draws import different
from .instructions import has_its_form, instructions
from .numbers import arithmetic
from .sentences import grammar
from .words import copying, spelling
from .written import english, facts, languages, sense

ROWS = 24  # of each ability
ANSWER_TOKENS = 16  # of an answer to an instruction

GENERATED: Mapping[str, Callable[[Random], dict]] = {
    "arithmetic": arithmetic,
    "copying": copying,
    "grammar": grammar,
    "spelling": spelling,
}
WRITTEN: Mapping[str, Callable[[Random], list[dict]]] = {
    "facts": facts,
    "sense": sense,
    "instructions": instructions,
    "english": english,
    "languages": languages,
}
CHOICES = ("arithmetic", "copying", "facts", "grammar", "sense", "spelling")
ABILITIES = (*CHOICES, "instructions", "english", "languages")


def general(*, seed: int = 0, rows: int = ROWS, abilities: Sequence[str] = ABILITIES) -> Exam:
    """An exam of what a model can do beside its task, to see what a training has cost.

        >>> exam = scores.general()
        >>> base, tuned = exam.take(model, adapters=False), exam.take(model)
        >>> tuned.require(no_worse_than=base)

    Its metrics are `general`, the share of all questions with choices whose right choice the model finds the likeliest,
    and one for each of `abilities`: so for `arithmetic`, `copying` of words, `facts`, `grammar`, `sense` of everyday
    and `spelling`; `instructions` is how many answers have the form that was asked for, and `english` and `languages`
    (six of Europe) are perplexities per byte of texts, where less is better.

    It is small: `rows` of each, so that a score of one ability may be off by twenty points (its interval says how
    much), and far from what a large model can do. It tells of things forgotten, not which model is the better one. The
    rows are ours, in English but for `languages`, and the same for a `seed` everywhere. More of a kind come from
    reasoning-gym, whose rows an `Exam` takes as they are:

        >>> data = reasoning_gym.create_dataset("leg_counting", size=50, seed=0)
        >>> right = scores.program(lambda prompt, answer, row: data.score_answer(answer, row), "leg_counting")
        >>> exam = scores.Exam(list(data), metrics=[right])

    Raises ValueError for an ability there is none of, and for more `rows` than there are of one: 24 of `english` and of
    `languages`, 48 of `sense`, 66 of `instructions`, 74 of `facts`, and hundreds of the others.
    """
    chosen = _known(abilities)
    if rows < 1:
        raise ValueError(f"rows is {rows}; it must be at least 1.")
    drawn = [{"ability": name, **row} for name in chosen for row in _drawn(name, seed, rows)]
    metrics = [_metric(name) for name in chosen]
    if any(name in CHOICES for name in chosen):
        together = replace(multiple_choice(), name="general", concerns=lambda row: row["ability"] in CHOICES)
        metrics = [together, *metrics]
    exam = Exam(drawn, metrics=metrics, max_tokens=ANSWER_TOKENS)
    exam.general = {"seed": seed, "rows": rows, "abilities": list(chosen)}
    return exam


def _known(abilities: Sequence[str]) -> list[str]:
    chosen = list(dict.fromkeys([abilities] if isinstance(abilities, str) else abilities))
    if not chosen or not set(chosen) <= set(ABILITIES):
        raise ValueError(f"abilities is {abilities!r:.80}; there are {', '.join(ABILITIES)}.")
    return chosen


def _drawn(name: str, seed: int, rows: int) -> list[dict]:
    chance = Random(f"{name} {seed}")
    if name in GENERATED:
        make = GENERATED[name]
        found = list(islice(different(lambda: make(chance), _asked), rows))
    else:
        found = WRITTEN[name](chance)[:rows]
    if len(found) < rows:
        raise ValueError(f"rows is {rows}, and there are {len(found)} for {name!r}; ask fewer, or leave it out.")
    return found


def _asked(row: Mapping[str, Any]) -> str:
    """What makes a generated row another one: its question, and where all ask the same its right answer."""
    return row["question"] + (row["choices"][row["answer"]] if "choices" in row else "")


def _metric(name: str) -> Metric:
    if name in CHOICES:
        judged = multiple_choice()
    elif name == "instructions":
        judged = program(has_its_form, name)
    else:
        judged = byte_perplexity()
    return replace(judged, name=name, concerns=lambda row: row["ability"] == name)
