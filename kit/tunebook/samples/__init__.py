"""Small real data sets, and models made for them, that need no network.

    >>> rows = samples.python_docs()

Doors: `sets`.
"""

from .sets import digit_reader, digits, photograph_reader, photographs, python_docs

__all__ = [
    "digit_reader",
    "digits",
    "photograph_reader",
    "photographs",
    "python_docs",
]
