"""One model before the questions of an exam: it writes answers, and says how likely it finds texts.

In between the model is as it was found. What cannot be asked of it comes back as the reason, in place of a reply.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar, final

from ..data.encoded import Encoded
from ..data.examples import Text
from ..models.families.base import NotEncodable, Written
from ..models.families.tables import BeyondTable, check_row, most_written
from ..models.loaded import Loaded
from .likelihoods import summed_likelihoods
from .metrics.metric import NotScored
from .question import Likelihood, Question
from .reading import continued
from .undisturbed import in_turns

T = TypeVar("T")

Continuation = tuple[int, str | None]  # (number of a question, a text behind it); None: the row's own answer


@final
class Sitting:
    """Questions put to one model, `batch_size` at a time; without `adapters` to its base model."""

    def __init__(self, loaded: Loaded, asked: Sequence[Question], *, adapters: bool, batch_size: int):
        self._loaded, self._module, self._family = loaded, loaded.module, loaded.family
        self._asked = {question.number: question for question in asked}
        self._adapters, self._batch_size = adapters, batch_size

    def why_alone(self) -> str | None:
        """Why answers are written one by one; None where they are not, or were not to be together."""
        if self._batch_size == 1:
            return None
        return next(self._in_turns(self._family.why_alone(self._module) for _ in range(1)))

    def answers(self, max_tokens: int) -> Iterator[tuple[int, Written | NotScored]]:
        """(number, answer) of each question."""
        able: list[Question] = []
        for number, question in self._asked.items():
            try:
                self._check_prompt(question)
            except (NotEncodable, BeyondTable, NotScored) as error:
                yield number, NotScored(str(error))
            else:
                able.append(question)
        prompts = [question.asked for question in able]
        found = self._family.answers(self._module, prompts, max_tokens=max_tokens, batch_size=self._batch_size)
        for place, written in self._in_turns(found):
            yield able[place].number, written

    def likelihoods(self, texts: Sequence[Continuation]) -> Iterator[tuple[Continuation, Likelihood | NotScored]]:
        """(text, likelihood) of each."""
        able: list[Continuation] = []
        rows: list[Encoded] = []
        for text in texts:
            try:
                rows.append(self._row(text))
            except (NotEncodable, BeyondTable, NotScored) as error:
                yield text, NotScored(str(error))
            else:
                able.append(text)
        summed = summed_likelihoods(self._family, self._module, rows, batch_size=self._batch_size)
        for place, found in self._in_turns(summed):
            number, text = able[place]
            said = _own_text(self._asked[number]) if text is None else text
            yield (number, text), Likelihood(said, found.nats, found.tokens, found.is_greedy)

    def _check_prompt(self, question: Question) -> None:
        if not question.asked.parts:
            raise NotScored("the row is a text without a question; a model can say how likely it finds it, no more.")
        (row,) = self._family.encode([question.asked])
        most_written(row.tokens, self._family.tables, self._loaded.tokenizer, max_tokens=1)

    def _row(self, continuation: Continuation) -> Encoded:
        """A row of which just the text is supervised."""
        number, text = continuation
        question, tables = self._asked[number], self._family.tables
        if text is not None:
            row = continued(question, text, self._loaded)
        elif question.whole is not None:
            (row,) = self._family.encode([question.whole])
        else:
            raise NotScored("the row has no answer of its own.")
        check_row(row, tables, self._loaded.tokenizer)
        if tables.positions is not None and len(row.tokens) > tables.positions:
            raise NotScored(f"it has {len(row.tokens)} tokens, and this model a table of {tables.positions} positions.")
        if not row.supervised_tokens:
            raise NotScored("its text has no token that is predicted from one before it.")
        return replace(row, number=number)

    def _in_turns(self, work: Iterator[T]) -> Iterator[T]:
        return in_turns(self._module, work, adapters=self._adapters)


def _own_text(question: Question) -> str:
    assert question.whole is not None
    return "".join(part.text for part in question.whole.parts if isinstance(part, Text) and part.supervised)
