"""Small real data sets, and models made for them, that need no network.

    >>> rows = samples.python_docs()

`home_commands` and `support_chats` are tasks of which a program can tell whether they were done. `one_sentence_pairs`
has pairs of answers for the objectives of preferences, and `is_one_sentence` is the rule they teach. `recorded_run` is
the folder of a run that is over, for `replay` and `load_run`.

Doors: `sets`.
"""

from .commands import home_commands
from .one_sentence import is_one_sentence, one_sentence_pairs
from .recorded import recorded_run
from .sets import digit_reader, digits, photograph_reader, photographs, python_docs
from .support import support_chats

__all__ = [
    "digit_reader",
    "digits",
    "home_commands",
    "is_one_sentence",
    "one_sentence_pairs",
    "photograph_reader",
    "photographs",
    "python_docs",
    "recorded_run",
    "support_chats",
]
