"""What a model writes: prompts as people give them, or as the rows of a data set hold them, and the text that follows.

Greedy unless told otherwise. The model is put in eval mode for the time; its weights are only read.
"""

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from mlx_lm.sample_utils import make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..data.answers import Answers
from ..data.examples import Example, Image, Text, Tokens, texts
from ..data.formats import render_prompt
from ..data.formats.templates import Tools, template_of
from ..data.questions import question_in
from ..data.tokenizer_state import bring_up_to_date
from .base_model import without_adapters
from .families.base import Piece
from .loaded import Loaded

OPENING_CHARACTERS = 60  # how much of a raw text is taken as the prompt for the rest of it


@dataclass(frozen=True)
class Prompt:
    """Something for the model to go on from."""

    shown: str  # as a reader should see it
    example: Example  # as the model reads it


def as_prompt(
    prompt: str | Sequence[Mapping[str, Any]],
    tokenizer: TokenizerWrapper,
    placeholder: str | None = None,
    *,
    thinking: bool | None = None,
    tools: Tools = None,
) -> Prompt:
    """A list of messages, or a string where the model has a chat template: a conversation, which it answers.

    A string without a chat template is text, which it continues. `placeholder` is what stands for an image in a text;
    None for a model that reads text alone. `thinking` turns the template's switch for thoughts on or off, `tools` are
    those it may call; ValueError where the template has no such switch, or no place for tools.
    """
    bring_up_to_date(tokenizer)
    options: dict[str, Any] = {"thinking": thinking, "tools": tools}
    if isinstance(prompt, str):
        if template_of(tokenizer, thinking) is None:
            if tools:
                raise ValueError(
                    "tools are given, and this model has no chat template to name them in; leave them out."
                )
            return Prompt(prompt, Example(parts=(Text(prompt),), rendered=False))
        messages = [{"role": "user", "content": prompt}]
        return Prompt(prompt, render_prompt(messages, tokenizer, placeholder, **options))
    return Prompt(_shown(prompt[-1]["content"]), render_prompt(prompt, tokenizer, placeholder, **options))


def opening(example: Example | Answers, tokenizer: TokenizerWrapper | None = None) -> Prompt:
    """A training example up to where the model begins to write; a text it writes from the start, to a few words in.

    With the `tokenizer` whose chat template rendered it, it is shown as the question alone.
    """
    if isinstance(example, Answers):
        return Prompt(_asked(_read_out(example.prompt.parts), tokenizer), example.prompt)
    first = example.parts[0]
    if isinstance(first, Tokens):
        count = first.supervised.index(True) or 1
        ids = Tokens(first.ids[:count], first.supervised[:count])
        return Prompt(f"({count} token ids)", Example((ids,), rendered=True))
    parts = list(takewhile(lambda part: not part.supervised, example.parts))
    if not parts:
        first_image = next((at for at, part in enumerate(example.parts) if isinstance(part, Image)), None)
        text = "".join(part.text for part in texts(Example(example.parts[:first_image], example.rendered)))
        start = text[:OPENING_CHARACTERS]
        parts = [Text(start.rsplit(" ", 1)[0] if len(text) > OPENING_CHARACTERS else start)]
    shown = _asked(_read_out(parts), tokenizer if example.rendered else None)
    return Prompt(shown, Example(tuple(parts), example.rendered))


def write(
    loaded: Loaded, prompt: Example, *, max_tokens: int, temperature: float = 0.0, top_p: float = 1.0
) -> Generator[str, None, None]:
    """What the model goes on with, about a token at a time, until it ends its turn or `max_tokens` are written."""
    with closing(written(loaded, prompt, max_tokens=max_tokens, temperature=temperature, top_p=top_p)) as pieces:
        for piece in pieces:
            yield piece.text


def written(
    loaded: Loaded,
    prompt: Example,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    top_k: int = 0,
) -> Generator[Piece, None, None]:
    """`write`, with the tokens. `min_p` leaves out what is less likely than this share of the likeliest, 0: nothing;
    `top_k` all but so many, 0: none. All three are asked of the model's own probabilities, before the temperature.
    """
    was_training = loaded.module.training
    loaded.module.eval()
    try:
        sampler = make_sampler(temp=temperature, top_p=top_p, min_p=min_p, top_k=top_k)
        yield from loaded.family.generate(loaded.module, prompt, max_tokens=max_tokens, sampler=sampler)
    finally:
        loaded.module.train(was_training)


def write_in_slices(
    loaded: Loaded,
    prompt: Example,
    *,
    seconds: float,
    adapters: bool = True,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> Iterator[str]:
    """As `write`, but in pieces that take about `seconds` each, between which the model is as it was found.

    Others may so use it in between. Without `adapters` the base model writes; ValueError as `without_adapters` has it.
    """
    module = loaded.module
    sampler = make_sampler(temp=temperature, top_p=top_p)
    pieces = loaded.family.generate(module, prompt, max_tokens=max_tokens, sampler=sampler)
    goes_on = True
    while goes_on:
        was_training = module.training
        module.eval()
        try:
            with nullcontext() if adapters else without_adapters(module):
                text, goes_on = _for_seconds(pieces, seconds)
        finally:
            module.train(was_training)
        yield text


def _for_seconds(pieces: Iterator[Piece], seconds: float) -> tuple[str, bool]:
    """(what `pieces` gives within `seconds`, at least one; whether there may be more)."""
    text, end = "", time.monotonic() + seconds
    for piece in pieces:
        text += piece.text
        if time.monotonic() >= end:
            return text, True
    return text, False


def _read_out(parts: Iterable[Text | Image | Tokens]) -> str:
    return "".join(part.text if isinstance(part, Text) else "(image)" for part in parts)


def _asked(rendered: str, tokenizer: TokenizerWrapper | None) -> str:
    """A rendered prompt as a reader should see it."""
    if tokenizer is None or not tokenizer.has_chat_template:
        return rendered.strip()
    return question_in(rendered, tokenizer).strip()


def _shown(content: Any) -> str:
    """A message's content as a reader should see it."""
    if not isinstance(content, list | tuple):
        return str(content)
    return "".join(part["text"] if part.get("type") == "text" else "(image)" for part in content)
