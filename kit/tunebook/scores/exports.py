"""A model on the disk before the questions of an exam: asked by the program it is for, in a fresh process.

It is asked the very token ids that a live model is. That the program would make the same ones of the prompts' text is
looked at beside it, and said where it would not: then people who use the export get other answers than these.
"""

from collections.abc import Iterator, Sequence
from typing import final

from ..data.encoded import Encoded
from ..data.examples import Text
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
        for number in numbers:
            question = self._asked[number]
            try:
                check_is_asked(question)
            except NotScored as error:
                yield number, error
            else:
                able.append(question)
        prompts = self._model.family.prompt_ids([question.asked for question in able])
        found = self._there.write(prompts, max_tokens=max_tokens)
        for question, wrote in zip(able, found, strict=True):
            yield question.number, self._model.family.written(wrote.tokens, ended=wrote.ended)

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
        found = self._there.likelihoods(rows)
        for (number, text), row, likely in zip(able, rows, found, strict=True):
            said = own_text(self._asked[number]) if text is None else text
            yield (number, text), Likelihood(said, likely.nats, row.supervised_tokens, likely.is_greedy)

    def notices(self, *, writes: bool) -> list[str]:  # noqa: ARG002 - as `Sitting` has it
        """Which program was asked, and the rows of whose prompts it makes other tokens."""
        program = self._opening.program
        said = [f"{program} was asked, in a process of its own."]
        if cut := self._cut_otherwise():
            said.append(
                f"Of {len(cut)} of {len(self._asked)} prompts (first: row {cut[0]}) {program} makes other tokens than "
                "the kit's tokenizer does; it was asked the kit's, and whoever gives it the text gets other answers."
            )
        return said

    def _cut_otherwise(self) -> list[int]:
        prompts = {
            number: question.asked
            for number, question in self._asked.items()
            if question.asked.parts and all(isinstance(part, Text) for part in question.asked.parts)
        }
        tokenizer = self._model.tokenizer
        if self._opening.is_gguf:
            bare = [without_bos(example.text, tokenizer) for example in prompts.values()]
            here = [tokenizer.encode(text) for text in bare]
            given = [(without_opening_spaces(text, tokenizer), True) for text in bare]
        else:
            given = [(example.text, not example.rendered) for example in prompts.values()]
            here = [tokenizer.encode(text, add_special_tokens=opens) for text, opens in given]
        there = self._there.tokenize(given)
        return [number for number, one, other in zip(prompts, here, there, strict=True) if one != other]


def opening(model: Closed, *, adapters: bool) -> Opening:
    """How `model` is opened; without `adapters` the base of those in its folder, ValueError where there is none."""
    if adapters:
        return Opening(path=model.path, base=model.base)
    if model.base is None:
        raise ValueError(f"{model.path} holds no adapters to leave out; give the path of its base model.")
    return Opening(path=model.base)
