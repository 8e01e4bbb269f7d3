"""Rows -> examples: which columns mean what, and which of the text the model is trained to write.

`reader` makes the function that reads one row, `to_examples` reads them all. Supervision is decided here, where the
text is rendered, and is never guessed at: what cannot be told exactly is refused.
"""

from ...config import TrainOn
from .markers import Markers, supervise_between
from .read import FormattingFunc, formatted, reader, render_chat, render_prompt, to_examples
from .recognition import FORMATS, Format, recognise
from .rows import BadRow, BadRows

__all__ = [
    "FORMATS",
    "BadRow",
    "BadRows",
    "Format",
    "FormattingFunc",
    "Markers",
    "TrainOn",
    "formatted",
    "reader",
    "recognise",
    "render_chat",
    "render_prompt",
    "supervise_between",
    "to_examples",
]
