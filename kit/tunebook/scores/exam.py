"""An exam: rows a model was not trained on, how they are asked, and the metrics that judge what comes of it.

Reading rows is `reading.py`, asking a model `sitting.py`, judging an answer `metrics/`, what comes out `marks.py`.
"""

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast, final

import numpy as np

from ..data.encoded import Encoded
from ..data.formats import FormattingFunc, Markers
from ..data.images import refer
from ..data.opened import ReadingOptions, open_rows
from ..data.sources import Source
from ..export.report import Export
from ..machine.progress_bars import progress
from ..models.families.base import Written
from ..models.loaded import HoldsLoaded, Loaded, loaded_in
from ..models.loader import without_weights
from .exports import SittingElsewhere
from .marks import Answered, Marks
from .metrics import as_metrics
from .metrics.metric import Metric, NotScored, marked
from .metrics.programs import Program
from .overlap import shared_rows, told_of
from .question import Likelihood, Question
from .reading import Continuation, Reads, asked_as, final_text, questions
from .sitting import Sitting, name_of

BATCH = 8  # rows that are asked at a time

# What a metric asks of a question that it is for: the texts behind it, or why it cannot say which; None: an answer.
Wanted = list[Continuation] | NotScored | None


# A model in memory, or an export: what a saving method returned, or the path of it.
Asked = HoldsLoaded | Export | Path | str


def path_of(model: Asked) -> Path | None:
    """Where an export lies; None for a model in memory."""
    if isinstance(model, Export):
        return model.path
    return Path(model).expanduser() if isinstance(model, Path | str) else None


@final
class Exam:
    """Rows to be asked, and how answers are judged.

        >>> exam = scores.Exam(held_out_rows, metrics=["exact_match"], max_tokens=8)
        >>> base, tuned = exam.take(model, adapters=False), exam.take(model)
        >>> exported = exam.take(model.save_pretrained("out/lora"))

    `rows` are anything a Trainer takes as `eval_dataset`, or have a column `question` or `prompt`, with an `answer` or
    without; of a conversation the last answer is asked for. `metrics` are names (`scores.METRICS`), what the functions
    of `scores` give, or functions of yours: `fn(prompt, answer, row) -> float | bool`. An answer is greedy and has at
    most `max_tokens` tokens. `format`, `formatting_func`, `response_markers` and `thinking` are as a Trainer has them.
    """

    def __init__(
        self,
        rows: Source,
        metrics: Sequence[str | Metric | Program],
        *,
        max_tokens: int = 256,
        format: str | None = None,
        formatting_func: FormattingFunc | None = None,
        response_markers: Markers | None = None,
        thinking: bool | None = None,
    ):
        if max_tokens < 1 or int(max_tokens) != max_tokens:
            raise ValueError(f"max_tokens is {max_tokens}; it must be a whole number, at least 1.")
        options = ReadingOptions(
            format=format, formatting_func=formatting_func, response_markers=response_markers, thinking=thinking
        )
        self.opened = open_rows(rows, "rows", options)
        self.metrics = as_metrics(metrics)
        for metric in self.metrics:
            if not any(map(metric.is_for, self.opened.rows)):
                raise ValueError(f"The metric {metric.name!r} is for none of the {len(self)} rows of the exam.")
        self.max_tokens = max_tokens
        self.general: Mapping[str, Any] | None = None  # what `scores.general` was called with, where that made it
        self._again = len(self) - len({_digest([row], []) for row in self.opened.rows})
        self.digest = _digest(self.opened.rows, [max_tokens, *(metric.name for metric in self.metrics)])

    def __len__(self) -> int:
        return len(self.opened.rows)

    def __repr__(self):
        return f"Exam({len(self)} rows; {', '.join(metric.name for metric in self.metrics)})"

    def take(self, model: Asked, *, adapters: bool = True, name: str | None = None, batch_size: int = BATCH) -> Marks:
        """The marks of `model`, which is left as it was, bit for bit; without `adapters` those of its base model.

        `model` may be an export, by its path or as a saving method returned it: then the program it is for is asked, in
        a fresh process; llama.cpp (the `verify` extra) for a .gguf, for a folder mlx-lm, or mlx-vlm where it reads
        images, both stock. The marks are called `name`; None: "tuned" or "base", and as the file of an export.
        `batch_size` rows are asked at a time, for the same answers; of an export they are asked one by one. Raises
        ValueError for rows that cannot be asked, and where there is no base model, ModelNotFound for a path without an
        export, DidNotReply for one that does not open.
        """
        if (path := path_of(model)) is not None:
            taking = self.taking_elsewhere(path, adapters=adapters, name=name)
        else:
            taking = self.taking(
                loaded_in(cast("HoldsLoaded", model), "Exam.take"), adapters=adapters, name=name, batch_size=batch_size
            )
        with progress(range(len(self)), "Scoring") as bar:
            while True:
                try:
                    done, bar.total = next(taking)
                except StopIteration as end:
                    return end.value
                bar.update(done - bar.n)

    def taking(
        self, loaded: Loaded, *, adapters: bool = True, name: str | None = None, batch_size: int = BATCH
    ) -> Generator[tuple[int, int], None, Marks]:
        """`take`, which yields (replies had, replies) in between, the model then as it was found."""
        asked = questions(self.opened, loaded)
        sitting = Sitting(loaded, asked, adapters=adapters, batch_size=batch_size)
        return (yield from self._taking(loaded, asked, sitting, name or name_of(loaded, adapters=adapters)))

    def taking_elsewhere(
        self, path: Path | str, *, adapters: bool = True, name: str | None = None
    ) -> Generator[tuple[int, int], None, Marks]:
        """`taking` of the export at `path`."""
        model = without_weights(path)
        asked = questions(self.opened, model)
        with closing(SittingElsewhere(model, asked, adapters=adapters)) as sitting:
            return (yield from self._taking(model, asked, sitting, name or (model.path.name if adapters else "base")))

    def _taking(
        self, model: Reads, asked: Sequence[Question], sitting: Sitting | SittingElsewhere, name: str
    ) -> Generator[tuple[int, int], None, Marks]:
        wanted = {
            question.number: {one.name: _wanted(one, question) for one in self.metrics if one.is_for(question.row)}
            for question in asked
        }
        every = [one for each in wanted.values() for one in each.values() if isinstance(one, list)]
        texts = list(dict.fromkeys(text for one in every for text in one))
        writes = [number for number, each in wanted.items() if None in each.values()]
        total = len(writes) + len(texts)
        answers: dict[int, Written | NotScored] = {}
        likelihoods: dict[Continuation, Likelihood | NotScored] = {}
        for number, answer in sitting.answers(writes, self.max_tokens):
            answers[number] = answer
            yield len(answers), total
        for text, likelihood in sitting.likelihoods(texts):
            likelihoods[text] = likelihood
            yield len(answers) + len(likelihoods), total

        def judged(question: Question) -> Answered:
            written, marks = answers.get(question.number), {}
            for metric in self.metrics:
                if metric.name not in wanted[question.number]:
                    continue
                one = wanted[question.number][metric.name]
                reply = _final(written, model) if one is None else _likelihoods(one, likelihoods)
                marks[metric.name] = marked(metric, question, reply)
            return _answered(question, written, marks, asked_as(question, model))

        rows = tuple(map(judged, asked))
        return Marks(
            name=name,
            exam=self.digest,
            metrics=self.metrics,
            rows=rows,
            notices=(*sitting.notices(writes=bool(writes)), *self._notices(rows)),
        )

    def sitting(self, model: HoldsLoaded, *, adapters: bool = True, batch_size: int = BATCH) -> Sitting:
        """`model` before these rows, to be asked of single ones: what it makes of each token, `Sitting.token_losses`.

            >>> sitting = exam.sitting(model, adapters=False)
            >>> found = dict(sitting.token_losses([(0, None), (0, "another answer")]))

        Without `adapters` it is its base model. Raises ValueError for rows that cannot be asked.
        """
        loaded = loaded_in(model, "Exam.sitting")
        return Sitting(loaded, questions(self.opened, loaded), adapters=adapters, batch_size=batch_size)

    def shared_with(self, loaded: Loaded, rows: Sequence[Encoded]) -> list[str]:
        """A sentence on those of the exam's rows that are among the training `rows`, or nearly; none where none is.

        Raises ValueError for rows that cannot be asked.
        """
        return told_of(shared_rows(questions(self.opened, loaded), loaded.family, rows), len(self))

    def _notices(self, rows: Sequence[Answered]) -> list[str]:
        written = [row.ended for row in rows if row.answer is not None]
        said = []
        if cut := written.count(False):
            said.append(
                f"{cut} of {len(written)} answers were cut at max_tokens={self.max_tokens}; raise it for the rest."
            )
        if self._again:
            said.append(
                f"{self._again} of {len(rows)} rows are the same as another, and intervals and p take each for one "
                "more question; take them out."
            )
        return said


def _wanted(metric: Metric, question: Question) -> Wanted:
    if metric.asks == "answer":
        return None
    if metric.asks == "reference":
        return [(question.number, None)]
    try:
        return [(question.number, text) for text in metric.asks(question)]
    except NotScored as error:
        return error


def _final(written: Written | NotScored | None, model: Reads) -> str | NotScored:
    assert written is not None
    return written if isinstance(written, NotScored) else final_text(written.text, model.tokenizer)


def _likelihoods(
    wanted: list[Continuation] | NotScored, known: dict[Continuation, Likelihood | NotScored]
) -> list[Likelihood] | NotScored:
    found: list[Likelihood] = []
    for text in wanted if isinstance(wanted, list) else ():
        one = known[text]
        if isinstance(one, NotScored):
            return one
        found.append(one)
    return found if isinstance(wanted, list) else wanted


def _answered(question: Question, written: Written | NotScored | None, marks: dict[str, Any], asked: str) -> Answered:
    wrote = written if isinstance(written, Written) else None
    return Answered(
        number=question.number,
        prompt=question.prompt,
        reference=question.reference,
        answer=wrote.text if wrote else None,
        ended=wrote.ended if wrote else True,
        marks=marks,
        asked=asked,
    )


def _digest(rows: Sequence[Any], settings: list[Any]) -> str:
    """The same for the same rows and settings."""
    seen = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16)
    for row in rows:
        seen.update(json.dumps(row, sort_keys=True, default=_plain).encode())
    return seen.hexdigest()


def _plain(value: Any) -> Any:
    """What JSON has no word for: arrays as lists, a picture by what tells it from others, all else by its type."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    try:
        return refer(value).digest.hex()
    except ValueError:
        return f"a {type(value).__name__}"
