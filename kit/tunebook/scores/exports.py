"""A model on the disk before the questions of an exam: asked by the program it is for, in a fresh process.

It is asked the very token ids that a live model is, and shown the very pixels. That the program would make the same ids
of the prompts is looked at beside it, and said where it would not: then people who use the export get other answers.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import final

import numpy as np

from ..data.encoded import Encoded
from ..data.examples import Example, Image, Text, Tokens
from ..data.images import opened
from ..export.readback.asking import Elsewhere, Opening
from ..export.readback.bos import without_bos, without_opening_spaces
from ..models.families.base import NotEncodable, Written
from ..models.loader import Closed
from .metrics.metric import NotScored
from .question import Likelihood, Question
from .reading import Continuation, check_is_asked, own_text, supervised_row


@final
class SittingElsewhere:
    """Questions put to a model on the disk; without `adapters` to the base of those in its folder.

    Raises ValueError where there is no such base, DidNotReply from the program that does not open it.
    """

    def __init__(self, model: Closed, asked: Sequence[Question], *, adapters: bool = True):
        self._model = model
        self._asked = {question.number: question for question in asked}
        self._opening = opening(model, adapters=adapters)
        self._there = Elsewhere(self._opening)

    def close(self) -> None:
        """End the process that was asked."""
        self._there.close()

    def answers(self, numbers: Sequence[int], max_tokens: int) -> Iterator[tuple[int, Written | NotScored]]:
        """(number, answer) of each of these questions."""
        able: list[Question] = []
        rows: list[Encoded] = []
        for number in numbers:
            question = self._asked[number]
            try:
                check_is_asked(question)
                rows += self._model.family.prompts([question.asked])
            except (NotEncodable, NotScored) as error:
                yield number, NotScored(str(error))
            else:
                able.append(question)
        prompts, beside = [row.tokens.tolist() for row in rows], map(self._model.family.beside, rows)
        found = self._there.write(prompts, max_tokens=max_tokens, beside=beside)
        for question, wrote in zip(able, found, strict=True):
            yield question.number, self._model.written(wrote.tokens, ended=wrote.ended)

    def likelihoods(self, texts: Sequence[Continuation]) -> Iterator[tuple[Continuation, Likelihood | NotScored]]:
        """(text, likelihood) of each."""
        able: list[Continuation] = []
        rows: list[Encoded] = []
        for number, text in texts:
            try:
                rows.append(supervised_row(self._asked[number], text, self._model))
            except (NotEncodable, NotScored) as error:
                yield (number, text), NotScored(str(error))
            else:
                able.append((number, text))
        found = self._there.likelihoods(rows, map(self._model.family.beside, rows))
        for (number, text), row, likely in zip(able, rows, found, strict=True):
            said = own_text(self._asked[number]) if text is None else text
            yield (number, text), Likelihood(said, likely.nats, row.supervised_tokens, likely.is_greedy)

    def notices(self, *, writes: bool) -> list[str]:  # noqa: ARG002 - as `Sitting` has it
        """Which program was asked, and the rows of whose prompts it makes other tokens."""
        program = self._opening.program
        said = [f"{program} was asked, in a process of its own."]
        shows = any(isinstance(part, Image) for question in self._asked.values() for part in question.asked.parts)
        if shows and (otherwise := self._model.family.seen_otherwise) is not None:
            said.append(otherwise)
        if cut := self._cut_otherwise():
            said.append(
                f"Of {len(cut)} of {len(self._asked)} prompts (first: row {cut[0]}) {program} makes other tokens than "
                "the kit's tokenizer does; it was asked the kit's, and whoever gives it the text gets other answers."
            )
        return said

    def _cut_otherwise(self) -> list[int]:
        numbers, examples, rows = self._prompts()
        tokenizer, placeholder = self._model.tokenizer, self._model.family.placeholder
        if placeholder is not None:
            here = [row.tokens.tolist() for row in rows]
            given = [(_as_text(example, placeholder), not example.rendered) for example in examples]
            there = self._there.tokenize(given, map(_pictures, examples))
        elif self._opening.is_gguf:
            bare = [without_bos(example.text, tokenizer) for example in examples]
            here = [tokenizer.encode(text) for text in bare]
            there = self._there.tokenize([(without_opening_spaces(text, tokenizer), True) for text in bare])
        else:
            given = [(example.text, not example.rendered) for example in examples]
            here = [tokenizer.encode(text, add_special_tokens=opens) for text, opens in given]
            there = self._there.tokenize(given)
        return [number for number, one, other in zip(numbers, here, there, strict=True) if one != other]

    def _prompts(self) -> tuple[list[int], list[Example], list[Encoded]]:
        """Those that are a text, with or without images: (number, example, row) of each."""
        numbers: list[int] = []
        examples: list[Example] = []
        rows: list[Encoded] = []
        for number, question in self._asked.items():
            parts = question.asked.parts
            if not parts or any(isinstance(part, Tokens) for part in parts):
                continue
            with suppress(NotEncodable):  # its answer says so already
                rows += self._model.family.prompts([question.asked])
                numbers.append(number)
                examples.append(question.asked)
        return numbers, examples, rows


def _as_text(example: Example, placeholder: str) -> str:
    """A prompt as its program is given it, `placeholder` where an image stands."""
    return "".join(part.text if isinstance(part, Text) else placeholder for part in example.parts)


def _pictures(example: Example) -> list[np.ndarray]:
    """Its images, (height, width, 3) uint8 each."""
    return [np.array(opened(part.image)) for part in example.parts if isinstance(part, Image)]


def opening(model: Closed, *, adapters: bool) -> Opening:
    """How `model` is opened; without `adapters` the base of those in its folder, ValueError where there is none."""
    if adapters:
        return Opening(path=model.path, base=model.base, library=model.library)
    if model.base is None:
        raise ValueError(f"{model.path} holds no adapters to leave out; give the path of its base model.")
    return Opening(path=model.base, library=model.library)
