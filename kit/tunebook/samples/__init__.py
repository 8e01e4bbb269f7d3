"""Small real data sets, and models made for them, that need no network.

    >>> rows = samples.python_docs()

`one_sentence_pairs` has pairs of answers for the objectives of preferences, and `is_one_sentence` is the rule they
teach.

Doors: `sets`.
"""

from .one_sentence import is_one_sentence, one_sentence_pairs
from .sets import digit_reader, digits, photograph_reader, photographs, python_docs

__all__ = [
    "digit_reader",
    "digits",
    "is_one_sentence",
    "one_sentence_pairs",
    "photograph_reader",
    "photographs",
    "python_docs",
]
