"""Whether a model is shown thoughts before its answers, told from what a chat's template wrote."""

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..data.answers import Answers
from ..data.examples import Example, Text
from ..data.formats.templates import marks_of_thoughts


def has_thoughts(example: Example | Answers, tokenizer: TokenizerWrapper) -> bool | None:
    """Whether an answer in `example` has thoughts that are trained; None where it is no chat."""
    if not isinstance(example, Example) or not example.rendered:
        return None
    start, end = marks_of_thoughts(tokenizer)
    answers = [part.text for part in example.parts if isinstance(part, Text) and part.supervised]
    # The generation prompt may open the thoughts, so that an answer begins within them.
    return any(end in text and bool(text.partition(end)[0].rpartition(start)[2].strip()) for text in answers)
