"""Instructions about the form of an answer, and the program that checks whether it has that form.

What the answer says is not judged. These are the rows for which the model writes.
"""

import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from .draws import shuffled

ASKED = (
    "What is the capital of France?",
    "What colour is the sky?",
    "What do cows eat?",
    "Which animal barks?",
    "What is the opposite of hot?",
    "What do we use to write?",
    "Who paints pictures?",
    "Where do fish live?",
)
WORDS = ("river", "music", "winter", "teacher", "bread", "window", "horse", "garden", "letter", "train")
YES_OR_NO = (
    "Is the sun hot?",
    "Can fish fly?",
    "Is a rose a flower?",
    "Do cats have wings?",
    "Is ice cold?",
    "Is Paris in France?",
)
COUNTED = (
    "How many legs does a dog have?",
    "How many days does a week have?",
    "What is 2 + 3?",
    "How many eyes do people have?",
    "How many months does a year have?",
    "What is 10 - 4?",
)
LISTED = ("fruits", "animals", "colours", "countries", "vegetables", "sports")

# form -> (how it is asked for, what it is asked about, whether an answer has it)
FORMS: Mapping[str, tuple[str, tuple[str, ...], Callable[[str, str], bool]]] = {
    "one word": (
        "Answer with one word only. {}",
        ASKED,
        lambda answer, _: re.fullmatch(r"\W*[\w'’-]+\W*", answer) is not None,
    ),
    "yes or no": (
        "Answer with yes or no only. {}",
        YES_OR_NO,
        lambda answer, _: re.fullmatch(r"\W*(yes|no)\W*", answer, re.IGNORECASE) is not None,
    ),
    "a number": (
        "Answer with a number only. {}",
        COUNTED,
        lambda answer, _: re.fullmatch(r"\W*\d+\W*", answer) is not None,
    ),
    "this word": ("Write the word {} and nothing else.", WORDS, lambda answer, word: answer.strip(" .\"'*") == word),
    "with the word": (
        "Write a short sentence with the word {}.",
        WORDS,
        lambda answer, word: re.search(rf"\b{word}", answer, re.IGNORECASE) is not None,
    ),
    "begins with": (
        "Write a short sentence that begins with the word The and is about a {}.",
        WORDS,
        lambda answer, _: answer.startswith("The "),
    ),
    "a question": ("Write a short question about a {}.", WORDS, lambda answer, _: "?" in answer),
    "a list": (
        "List three {}, separated by commas.",
        LISTED,
        lambda answer, _: len([part for part in answer.split(",") if part.strip()]) >= 3,
    ),
}


def instructions(chance: Random) -> list[dict]:
    """A row for each form and each thing to ask about, with the form that its answer is to have."""
    every = [
        {"question": asked.format(thing), "form": form, "about": thing}
        for form, (asked, about, _) in FORMS.items()
        for thing in about
    ]
    return shuffled(chance, every)


def has_its_form(_prompt: str, answer: str, row: Mapping[str, Any]) -> bool:
    """Whether an answer is as the instruction of its row asks."""
    return FORMS[row["form"]][2](answer.strip(), row["about"])
