"""Rows -> examples: which columns mean what, and which of the text the model is trained to write.

`recognition.py` holds the formats there are; the function that reads one row of a format is in a file beside it
(`conversations.py`, `completions.py`, `plain.py`); a new one takes no more. `read.py` makes a reader for a whole set.
Supervision is decided here, where the text is rendered, and is never guessed at: what cannot be told exactly is
refused. Documents with images have settings of their own, and are no entry of the table (`documents.py`).
"""

from ...config import TrainOn
from .columns import BadRow, BadRows, NoFormat, RefusedRows
from .conversations import as_messages
from .markers import Markers, supervise_between
from .mends import called
from .read import FormattingFunc, format_of, formatted, reader, render_chat, render_prompt, to_examples
from .recognition import FORMATS, PAIR, Format, recognise

__all__ = [
    "FORMATS",
    "PAIR",
    "BadRow",
    "BadRows",
    "Format",
    "FormattingFunc",
    "Markers",
    "NoFormat",
    "RefusedRows",
    "TrainOn",
    "as_messages",
    "called",
    "format_of",
    "formatted",
    "reader",
    "recognise",
    "render_chat",
    "render_prompt",
    "supervise_between",
    "to_examples",
]
