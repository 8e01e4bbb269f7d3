"""The question in a rendered prompt: what was said last to the model, without the template's words and a system prompt.

For people to read only. Where the turns of a template cannot be found in its own text, the prompt is shown as it is.
"""

import re
from itertools import takewhile

from mlx_lm.tokenizer_utils import TokenizerWrapper

from .formats.columns import BadRow
from .formats.templates import ChatTemplate

FIRST, ANSWER, SECOND = "Qq7xZk", "Mw9pVj", "Hd3tRy"  # words that stand in no template


def question_in(rendered: str, tokenizer: TokenizerWrapper) -> str:
    """The last turn of a user in `rendered`, a conversation up to where the model speaks."""
    template = ChatTemplate(tokenizer)
    around = _around_a_question(template)
    if around is None:
        return rendered
    before, after = around
    _, found, rest = rendered.rpartition(before)
    question = rest.partition(after)[0] if found else rendered
    for token in template.added_tokens:  # such as those that stand around an image
        question = question.replace(token, "")
    return question.strip() or rendered


def _around_a_question(template: ChatTemplate) -> tuple[str, str] | None:
    """What a template writes before each turn of a user and after it; None where that is not told apart."""
    turns = [("user", FIRST), ("assistant", ANSWER), ("user", SECOND)]
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        pieces = re.split(f"{FIRST}|{ANSWER}|{SECOND}", template.render(messages, add_generation_prompt=True))
    except (BadRow, ValueError):
        return None
    if len(pieces) != len(turns) + 1:
        return None
    before = _shared_start(pieces[0][::-1], pieces[2][::-1])[::-1]
    after = _shared_start(pieces[1], pieces[3])
    return (before, after) if before.strip() and after.strip() else None


def _shared_start(first: str, second: str) -> str:
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
