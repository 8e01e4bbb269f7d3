"""Rows of an exam -> questions: where the model begins to write, and what the row has there itself.

Rows are read as training rows are (`data/formats`), and of a conversation the last answer is asked for. A row may also
be a question alone, with or without an answer: rows for a program that checks, or for choices.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..data.encoded import Encoded
from ..data.examples import Example, Image, Text, Tokens
from ..data.formats import BadRow, NoFormat, reader
from ..data.formats.templates import marks_of_thoughts
from ..data.opened import Opened
from ..data.questions import question_in
from ..data.row_kinds import row_kind
from ..data.sources import Row
from ..data.tokenizer_state import bring_up_to_date
from ..models.families.base import NotEncodable
from ..models.generation import as_prompt
from .metrics.metric import NotScored
from .metrics.multiple_choice import right_choice
from .question import Question

# Of a row that is a question alone: where it stands, and where its answer does.
ASKED, ANSWERED = ("question", "prompt"), ("answer", "reference", "target")

Part = Text | Image | Tokens
Continuation = tuple[int, str | None]  # (number of a question, a text behind it); None: the row's own answer


class Encodes(Protocol):
    """Of a family what reading takes: `Family` is one, and so is what stands for it where no weights are in memory."""

    @property
    def placeholder(self) -> str | None: ...

    def encode(self, examples: Sequence[Example]) -> list[Encoded]: ...


class Reads(Protocol):
    """A model that reads rows: `Loaded` is one, and so is a model on the disk."""

    @property
    def tokenizer(self) -> TokenizerWrapper: ...

    @property
    def family(self) -> Encodes: ...


def questions(opened: Opened, model: Reads) -> list[Question]:
    """The questions that the rows of `opened` are. Raises ValueError, with all of them, for rows that are none."""
    bring_up_to_date(model.tokenizer)
    read = _reader(opened, model)
    found: list[Question] = []
    refused: dict[str, list[int]] = {}
    for number, row in enumerate(opened.rows):
        try:
            found.append(replace(read(row), number=number, row=row))
        except (BadRow, NotEncodable) as error:
            refused.setdefault(str(error), []).append(number)
    if refused:
        told = " ".join(f"Row {numbers[0]}{_others(numbers)}: {reason}" for reason, numbers in refused.items())
        count = sum(map(len, refused.values()))
        raise ValueError(f"{count} of {len(opened.rows)} rows of the exam cannot be asked. {told}")
    return found


def final_text(text: str, tokenizer: TokenizerWrapper) -> str:
    """An answer without the thoughts before it."""
    _, end = marks_of_thoughts(tokenizer)
    return text.rpartition(end)[2].lstrip() if end in text else text


def supervised_row(question: Question, text: str | None, model: Reads) -> Encoded:
    """The question with `text` behind it, of which just that is supervised; None: the row's own answer.

    Raises NotEncodable, and NotScored where there is nothing to predict.
    """
    if text is not None:
        row = _continued(question, text, model)
    elif question.whole is not None:
        (row,) = model.family.encode([question.whole])
    else:
        raise NotScored("the row has no answer of its own.")
    if not row.supervised_tokens:
        raise NotScored("its text has no token that is predicted from one before it.")
    return replace(row, number=question.number)


def own_text(question: Question) -> str:
    """The row's own answer as it is supervised, with what ends it."""
    assert question.whole is not None
    return "".join(part.text for part in question.whole.parts if isinstance(part, Text) and part.supervised)


def asked_as(question: Question, model: Reads) -> str:
    """A digest of the token ids that `model` reads the question as; "" for one with images, and where none is asked."""
    parts = question.asked.parts
    if not parts or any(isinstance(part, Image) for part in parts):
        return ""
    (row,) = model.family.encode([question.asked])
    return hashlib.blake2b(row.tokens.tobytes(), digest_size=8).hexdigest()


def check_is_asked(question: Question) -> None:
    """Raise NotScored for a row that asks nothing."""
    if not question.asked.parts:
        raise NotScored("the row is a text without a question; a model can say how likely it finds it, no more.")


def _continued(question: Question, text: str, model: Reads) -> Encoded:
    asked = question.asked
    (row,) = model.family.encode([replace(asked, parts=(*asked.parts, Text(text, supervised=True)))])
    if asked.rendered or row.tokens[-1] != model.tokenizer.eos_token_id:
        return row
    return replace(row, tokens=row.tokens[:-1], loss_mask=row.loss_mask[:-1])  # a text by itself is ended, this is none


def _reader(opened: Opened, model: Reads) -> Callable[[Row], Question]:
    tokenizer, placeholder = model.tokenizer, model.family.placeholder
    try:
        read = row_kind(opened, tokenizer, placeholder).reader()
    except NoFormat:
        if not all(_named(row, ASKED) for row in opened.rows):
            raise
        return lambda row: _bare(row, opened, model)
    return lambda row: _split(_as_example(read(row)), tokenizer)


def _as_example(read: Any) -> Example:
    if not isinstance(read, Example):
        raise BadRow("it holds answers to compare; an exam asks for one.")
    return read


def _bare(row: Row, opened: Opened, model: Reads) -> Question:
    """A row that is a question, and maybe an answer."""
    asked, answer = row[str(_named(row, ASKED))], _answer_of(row)
    thinking, placeholder = opened.options.thinking, model.family.placeholder
    if answer is None:
        prompt = as_prompt(asked, model.tokenizer, placeholder, thinking=thinking)
        return Question(number=0, prompt=prompt.shown, reference=None, row=row, asked=prompt.example)
    completion: Any = answer if isinstance(asked, str) else [{"role": "assistant", "content": answer}]
    made = {"prompt": asked, "completion": completion}
    reading = {"placeholder": placeholder, "reach": opened.reach, "thinking": thinking}
    return _split(reader([made], model.tokenizer, "prompt_completion", **reading)(made), model.tokenizer)


def _named(row: Row, names: Sequence[str]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


def _answer_of(row: Row) -> str | None:
    """What stands as the answer; of one that is the place or letter of a choice, the choice.

    One that is neither is taken as it stands: a metric that asks for a choice says so, of this row.
    """
    name = _named(row, ANSWERED)
    if name is None:
        return None
    if isinstance(choices := row.get("choices"), list | tuple):
        with suppress(NotScored):
            return str(choices[right_choice(list(choices), row[name])])
    return str(row[name])


def _split(example: Example, tokenizer: TokenizerWrapper) -> Question:
    """An example, parted before the last text that is trained. Raises BadRow where there is none."""
    first = example.parts[0]
    if isinstance(first, Tokens):
        return _split_tokens(example, first, tokenizer)
    supervised = [part.supervised for part in example.parts]
    if True not in supervised:
        raise BadRow("it has no answer to ask for.")
    end = len(supervised) - supervised[::-1].index(True)
    begin = end - (supervised[:end][::-1].index(False) if False in supervised[:end] else end)
    asked, answered = example.parts[:begin], example.parts[begin:end]
    whole = (*_untrained(asked), *answered, *_untrained(example.parts[end:]))
    return Question(
        number=0,
        prompt=_shown(asked, example.rendered, tokenizer),
        reference=_clean("".join(part.text for part in answered if isinstance(part, Text)), tokenizer),
        row={},
        asked=Example(_untrained(asked), example.rendered),
        whole=Example(whole, example.rendered),
    )


def _split_tokens(example: Example, tokens: Tokens, tokenizer: TokenizerWrapper) -> Question:
    """The same of a row that came as token ids."""
    trained = [place for place, is_trained in enumerate(tokens.supervised) if is_trained]
    if not trained:
        raise BadRow("it has no answer to ask for.")
    begin = trained[-1]
    while begin and tokens.supervised[begin - 1]:
        begin -= 1
    ids, only = tokens.ids, tuple(begin <= place <= trained[-1] for place in range(len(tokens.ids)))
    asked = (Tokens(ids[:begin], (False,) * begin),) if begin else ()
    return Question(
        number=0,
        prompt=tokenizer.decode(list(ids[:begin])),
        reference=_clean(tokenizer.decode(list(ids[begin : trained[-1] + 1])), tokenizer),
        row={},
        asked=Example(asked, example.rendered),
        whole=Example((Tokens(ids, only),), example.rendered),
    )


def _untrained(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(Text(part.text) if isinstance(part, Text) else part for part in parts)


def _shown(parts: Sequence[Part], rendered: bool, tokenizer: TokenizerWrapper) -> str:
    text = "".join(part.text if isinstance(part, Text) else "(image)" for part in parts)
    return question_in(text, tokenizer).strip() if rendered and tokenizer.has_chat_template else text.strip()


def _clean(answer: str, tokenizer: TokenizerWrapper) -> str:
    """An answer without thoughts, without the tokens that end it and without space around it."""
    ends = {*tokenizer.convert_ids_to_tokens(sorted(tokenizer.eos_token_ids)), *tokenizer.all_special_tokens}
    text = final_text(answer, tokenizer).strip()
    while end := next((end for end in ends if end and text.endswith(end)), None):
        text = text.removesuffix(end).rstrip()
    return text


def _others(numbers: Sequence[int]) -> str:
    return f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
