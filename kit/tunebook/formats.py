"""Rows -> examples: which columns mean what, and which of the text the model is trained to write.

A format is a function from one row to an `Example`; `FORMATS` lists them by the columns they need, so adding one is
adding one entry. Supervision is decided here, where the text is rendered: the assistant's turns are supervised, up to
and including the token that ends the turn, and nothing else is. A template for which that cannot be done exactly is
refused, never guessed at.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from .examples import Example, Text
from .sources import Row


class BadRow(ValueError):
    """One row that cannot become an example; `to_examples` collects them and names the first."""


@dataclass(frozen=True)
class Format:
    """A kind of row: the columns it is recognised by, and how one row is read."""

    columns: tuple[str, ...]
    read: Callable[[Row, TokenizerWrapper], Example]


def to_examples(rows: Sequence[Row], tokenizer: TokenizerWrapper, format: str | None = None) -> list[Example]:
    """Every row as an example, in order.

    `format` is a key of FORMATS; None recognises it from the columns of all rows together. Raises ValueError when the
    rows are of no format or of several, and when any row is bad: how many, the first one, and what is wrong with it.
    """
    read = FORMATS[recognise(rows) if format is None else _known(format)].read
    examples, bad = [], []
    for index, row in enumerate(rows):
        try:
            examples.append(read(row, tokenizer))
        except BadRow as error:
            bad.append((index, str(error)))
    if bad:
        kinds = "; ".join(f"{count}x {text}" for text, count in Counter(text for _, text in bad).most_common(3))
        raise ValueError(f"{len(bad)} of {len(rows)} rows cannot be trained on (first: row {bad[0][0]}): {kinds}")
    return examples


def recognise(rows: Sequence[Row]) -> str:
    """The one format every row has the columns of. Raises ValueError with the counts when there is not exactly one."""
    counts = Counter(name for row in rows for name in _candidates(row))
    complete = [name for name, count in counts.items() if count == len(rows)]
    if len(complete) == 1:
        return complete[0]
    columns = sorted({column for row in rows for column in row})
    known = "; ".join(f"{name}: {', '.join(kind.columns)}" for name, kind in FORMATS.items())
    seen = (
        ", ".join(f"{count} of {len(rows)} look like '{name}'" for name, count in counts.most_common()) or "none fits"
    )
    raise ValueError(
        f"Cannot tell the format of these rows: {seen}. Their columns are {', '.join(columns) or 'none'}; the formats "
        f"and their columns are {known}. Pass format='...' to choose one."
    )


def _candidates(row: Row) -> list[str]:
    return [name for name, kind in FORMATS.items() if all(row.get(column) is not None for column in kind.columns)]


def _known(format: str) -> str:
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; choose one of {', '.join(FORMATS)}.")
    return format


def read_messages(row: Row, tokenizer: TokenizerWrapper) -> Example:
    """`{"messages": [{"role": ..., "content": ...}, ...]}`: every assistant turn is supervised."""
    return render_chat(_column(row, "messages", list), tokenizer)


def read_prompt_completion(row: Row, tokenizer: TokenizerWrapper) -> Example:
    """`{"prompt": ..., "completion": ...}`: strings are one chat turn each; without a chat template, plain text."""
    prompt, completion = _column(row, "prompt", str), _column(row, "completion", str)
    if not tokenizer.has_chat_template:
        return Example(parts=(Text(prompt), Text(completion, supervised=True)), rendered=False)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return render_chat(turns, tokenizer)


def read_text(row: Row, tokenizer: TokenizerWrapper) -> Example:  # noqa: ARG001 - every format has this signature
    """`{"text": ...}`: raw text, all of it supervised."""
    return Example(parts=(Text(_column(row, "text", str), supervised=True),), rendered=False)


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), read_messages),
    "prompt_completion": Format(("prompt", "completion"), read_prompt_completion),
    "text": Format(("text",), read_text),
}


def render_chat(messages: Sequence[Mapping[str, Any]], tokenizer: TokenizerWrapper) -> Example:
    """A conversation as its template writes it, each assistant turn supervised up to its end-of-turn token.

    The template is rendered up to the start and up to the end of each assistant turn, and each rendering must be a
    prefix of the whole: what lies between the two is exactly what the model would have written. Raises BadRow when
    there is no answer to learn, ValueError when there is no template or the template rewrites earlier turns.
    """
    _check_turns(messages)
    if not tokenizer.has_chat_template:
        raise ValueError(
            "This tokenizer has no chat template, so a conversation cannot be rendered. Load an instruct model, pass "
            "chat_template=... to from_pretrained, or give the rows a 'text' column."
        )
    whole = _render(tokenizer, messages)
    parts, cursor = [], 0
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            before = _render(tokenizer, messages[:turn], add_generation_prompt=True)
            after = _render(tokenizer, messages[: turn + 1])
            if not (after.startswith(before) and whole.startswith(after)):
                raise ValueError(
                    f"The chat template does not render turn {turn} (assistant) as a continuation of the turns before "
                    "it, so what the model would have written cannot be told exactly. Pass another chat_template=... "
                    "to from_pretrained."
                )
            end = len(before) + _end_of_turn(after[len(before) :], tokenizer)
            parts += [Text(whole[cursor : len(before)]), Text(whole[len(before) : end], supervised=True)]
            cursor = end
    parts.append(Text(whole[cursor:]))
    return Example(parts=tuple(part for part in parts if part.text), rendered=True)


def render_prompt(messages: Sequence[Mapping[str, Any]], tokenizer: TokenizerWrapper) -> Example:
    """A conversation up to the point where the assistant speaks next; nothing is supervised."""
    return Example(parts=(Text(_render(tokenizer, messages, add_generation_prompt=True)),), rendered=True)


def _render(tokenizer: TokenizerWrapper, messages: Sequence[Mapping[str, Any]], **options: bool) -> str:
    return tokenizer.apply_chat_template(list(messages), tokenize=False, **options)


def _end_of_turn(written: str, tokenizer: TokenizerWrapper) -> int:
    """Where the assistant's text ends: behind its last end-of-turn token, for generation stops there."""
    ends = [written.rfind(token) + len(token) for token in _end_tokens(tokenizer) if token in written]
    return max(ends, default=len(written))


def _end_tokens(tokenizer: TokenizerWrapper) -> list[str]:
    return tokenizer.convert_ids_to_tokens(sorted(tokenizer.eos_token_ids))


def _check_turns(messages: Sequence[Mapping[str, Any]]) -> None:
    for turn, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise BadRow(f"turn {turn} is not a dict with 'role' and 'content'.")
        if not isinstance(message["content"], str):
            raise BadRow(f"the content of turn {turn} is a {type(message['content']).__name__}, not a string.")
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    if not answers:
        raise BadRow("it has no assistant turn, so there is no answer to learn; drop it or use format='text'.")
    if not all(answer.strip() for answer in answers):
        raise BadRow("an assistant turn is empty, so there is no answer to learn; drop it.")


def _column(row: Row, name: str, kind: type) -> Any:
    value = row.get(name)
    if not isinstance(value, kind):
        raise BadRow(f"its column '{name}' is a {type(value).__name__}, not a {kind.__name__}.")
    if not value:
        raise BadRow(f"its column '{name}' is empty.")
    return value
