"""One model before the questions of an exam: it writes answers, and says how likely it finds texts.

In between the model is as it was found. What cannot be asked of it comes back as the reason, in place of a reply.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, final

from ..data.encoded import Encoded
from ..models.base_model import is_base
from ..models.families.base import NotEncodable, Written
from ..models.families.tables import BeyondTable, check_row, most_written
from ..models.loaded import Loaded
from .likelihoods import read_whole, summed_likelihoods, why_apart
from .likelihoods.token_losses import TokenLosses, token_losses
from .metrics.metric import NotScored
from .question import Likelihood, Question
from .reading import Continuation, check_is_asked, own_text, supervised_row
from .undisturbed import in_turns

T = TypeVar("T")


def name_of(loaded: Loaded, *, adapters: bool) -> str:
    """What a model in memory is called where nobody names it."""
    return "tuned" if adapters and not is_base(loaded.module) else "base"


@final
class Sitting:
    """Questions put to one model, `batch_size` at a time; without `adapters` to its base model."""

    def __init__(self, loaded: Loaded, asked: Sequence[Question], *, adapters: bool, batch_size: int):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        self._loaded, self._module, self._family = loaded, loaded.module, loaded.family
        self._asked = {question.number: question for question in asked}
        self._adapters, self._batch_size = adapters, batch_size
        self._apart: str | None = None  # why rows that begin alike were read whole, each of them

    @property
    def questions(self) -> Mapping[int, Question]:
        """By the number of their row."""
        return self._asked

    def answers(self, numbers: Sequence[int], max_tokens: int) -> Iterator[tuple[int, Written | NotScored]]:
        """(number, answer) of each of these questions."""
        able: list[Question] = []
        for number in numbers:
            question = self._asked[number]
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
        able, rows, refused = self._rows(texts)
        yield from refused
        self._apart = self._in_a_turn(lambda: why_apart(self._family, self._module, rows))
        summed = summed_likelihoods(self._family, self._module, rows, batch_size=self._batch_size)
        for place, found in self._in_turns(summed):
            number, text = able[place]
            said = own_text(self._asked[number]) if text is None else text
            yield (number, text), Likelihood(said, found.nats, found.tokens, found.is_greedy)

    def token_losses(
        self, texts: Sequence[Continuation], *, longest: int | None = None
    ) -> Iterator[tuple[Continuation, TokenLosses | NotScored]]:
        """(text, the loss of each of its tokens); a row of more than `longest` tokens is not looked at."""
        able, rows, refused = self._rows(texts, longest)
        yield from refused
        measured = token_losses(self._family, self._module, rows, batch_size=self._batch_size)
        for place, found in self._in_turns(measured):
            yield able[place], found

    def notices(self, *, writes: bool) -> list[str]:
        """What took longer than it has to, and why: answers one by one where it `writes` any, rows read whole."""
        alone = None
        if writes and self._batch_size > 1:
            alone = self._in_a_turn(lambda: self._family.why_alone(self._module))
        said = [written_one_by_one(alone)] if alone else []
        return [*said, read_whole(self._apart)] if self._apart else said

    def _check_prompt(self, question: Question) -> None:
        check_is_asked(question)
        (row,) = self._family.encode([question.asked])
        most_written(row.tokens, self._family.tables, self._loaded.tokenizer, max_tokens=1)

    def _rows(
        self, texts: Sequence[Continuation], longest: int | None = None
    ) -> tuple[list[Continuation], list[Encoded], list[tuple[Continuation, NotScored]]]:
        """(those that can be asked, each as a row; the others, each with the reason)."""
        able: list[Continuation] = []
        rows: list[Encoded] = []
        refused: list[tuple[Continuation, NotScored]] = []
        for text in texts:
            try:
                row = self._row(text)
                if longest is not None and len(row.tokens) > longest:
                    raise NotScored(f"with its prompt it has {len(row.tokens):,} tokens, more than {longest:,}.")
            except (NotEncodable, BeyondTable, NotScored) as error:
                refused.append((text, NotScored(str(error))))
            else:
                able.append(text)
                rows.append(row)
        return able, rows, refused

    def _row(self, continuation: Continuation) -> Encoded:
        """A row of which just the text is supervised."""
        number, text = continuation
        row, tables = supervised_row(self._asked[number], text, self._loaded), self._family.tables
        check_row(row, tables, self._loaded.tokenizer)
        if tables.positions is not None and len(row.tokens) > tables.positions:
            raise NotScored(f"it has {len(row.tokens)} tokens, and this model a table of {tables.positions} positions.")
        return row

    def _in_a_turn(self, work: Callable[[], T]) -> T:
        return next(self._in_turns(work() for _ in range(1)))

    def _in_turns(self, work: Iterator[T]) -> Iterator[T]:
        return in_turns(self._module, work, adapters=self._adapters)


def written_one_by_one(reason: str) -> str:
    """The sentence on answers that are not written together for a `reason`."""
    return f"The answers were written one by one: {reason}."
