"""`TokenView`: rows exactly as the model reads them, the tokens it is trained to write marked.

What comes in are a trainer, or a model and rows; what goes out is static HTML, with plain text beside it for places
that show none, and on request a live browser of all rows. The kit encodes and checks the rows, as for training: the
mask that is shown is the one the loss uses.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TypeVar

import numpy as np

from tunebook.data.encoded import Encoded
from tunebook.data.formats import FormattingFunc, Markers, TrainOn
from tunebook.data.opened import Opened, ReadingOptions, open_rows
from tunebook.data.row_kinds import row_kind
from tunebook.data.sources import Source
from tunebook.machine.inert import visible
from tunebook.models.loaded import Loaded, loaded_in
from tunebook.objectives.base import Objective
from tunebook.tokens.answer_facts import AnswerColumns
from tunebook.tokens.answers import encode_examples, shortened
from tunebook.tokens.data_report import DataReport, inspect
from tunebook.tokens.diagnosis import Diagnosis, diagnose
from tunebook.tokens.encoding import EncodedSet, encode
from tunebook.trainer import HoldsModel, Trainer

from .bad_rows_html import BadRows
from .token_book import Book, Page
from .token_browser import TokenBrowser
from .token_html import Bars, Card, shown, static_html

T = TypeVar("T")
OPTIONS = ReadingOptions(skip_bad_rows=True)  # lines that are no rows are shown, and so not refused


class TokenView:
    """Show a trainer's rows as they will be trained, or any rows as a model would read them.

        >>> view = TokenView(trainer)
        >>> view = TokenView(model, rows[:3])
        >>> from tunebook.objectives import DPO
        >>> pair = {"prompt": "What is 2 + 2?", "chosen": "Four.", "rejected": "It depends."}
        >>> view = TokenView(model, [pair], objective=DPO())

    The `rows` are anything `sources.read_rows` opens; `format`, `formatting_func`, `response_markers` and `objective`
    are those of the Trainer (pairs and judged answers are read by an objective), `train_on`, `max_seq_length` and
    `thinking` those of TrainingConfig; a trainer brings its own. As the last expression of a cell it shows what the set
    is like and a handful of rows, and stays in the saved notebook; `browse()` shows all rows, for as long as the kernel
    runs. `report` is what the check found. Rows that cannot be trained on come first, each as it came, with what is
    wrong and what mends it; `bad` is that, and None where all are good. Raises ValueError for a source that cannot be
    opened.
    """

    def __init__(
        self,
        model: HoldsModel | Trainer,
        rows: Source | None = None,
        *,
        objective: Objective | None = None,
        format: str | None = None,
        train_on: TrainOn = "assistant",
        response_markers: Markers | None = None,
        formatting_func: FormattingFunc | None = None,
        max_seq_length: int | None = None,
        thinking: bool | None = None,
    ):
        options = replace(
            OPTIONS,
            format=format,
            train_on=train_on,
            response_markers=response_markers,
            formatting_func=formatting_func,
            thinking=thinking,
            answers=None if objective is None else objective.compares,
        )
        if not isinstance(model, Trainer):
            if rows is None:
                raise ValueError("TokenView was given a model and no rows; pass TokenView(model, rows), or a trainer.")
            loaded = loaded_in(model, "TokenView")
            whole, name = open_rows(rows, "data", options), "data"
            limit = max_seq_length or loaded.max_seq_length
            self.bad, opened, encoded = _looked_at(whole, loaded, limit, name, _beside(objective))
        elif rows is not None or max_seq_length is not None or options != OPTIONS:
            raise ValueError("A trainer brings its own rows and settings; pass TokenView(trainer) and nothing else.")
        else:
            self.bad, opened, encoded = None, model.data.opened, model.data.train
            if opened.options.skip_bad_rows:
                whole, name = replace(opened, rows=opened.source, places=None), encoded.account.name
                limit, beside = model.max_seq_length, _beside(model.objective)
                self.bad, _ = diagnose(whole, model.loaded, max_seq_length=limit, name=name, beside=beside)
        self._report = self._book = None
        if opened is not None and encoded is not None:
            self._report = inspect(encoded, model.loaded.tokenizer)
            left_out = _left_out_reader(opened, encoded, model.loaded)
            self._book = _book(encoded, self._report, model.loaded, left_out)

    @property
    def report(self) -> DataReport:
        """What the check found in the rows that can be trained on. Raises ValueError where there are none."""
        return _there(self._report, self.bad)

    def __repr__(self):
        bad = [visible(self.bad)] if self.bad is not None else []
        if self._report is None or self._book is None:
            return "\n\n".join(bad)
        return "\n\n".join([*bad, str(self._report), *map(_plain, self._book.chosen())])

    def browse(self) -> TokenBrowser:
        """A widget to leaf through all rows, those that are left out among them; it needs the kernel.

        Raises ValueError where no row can be trained on.
        """
        return TokenBrowser(_there(self._book, self.bad), self.report.name)

    def _repr_html_(self) -> str:
        bad = None if self.bad is None else plain_diagnosis(self.bad)
        if self._report is None or self._book is None:
            return static_html(None, (), bad)
        report = self._report
        bars = Bars(report.histogram.width, report.histogram.counts, report.max_seq_length)
        findings = [(f"{finding.text} {finding.where}", finding.remedy) for finding in report.findings]
        return static_html(Card(report.facts, bars, findings), self._book.chosen(), bad)


def _beside(objective: Objective | None) -> list[str]:
    """The argument that rows of an objective need in every call; those of the next token need none."""
    return [] if objective is None or objective.compares is None else [f"objective={objective.written()}"]


def _looked_at(
    whole: Opened, loaded: Loaded, limit: int, name: str, beside: Sequence[str]
) -> tuple[Diagnosis | None, Opened | None, EncodedSet | None]:
    """(what is wrong, the rows that can be trained on, those encoded); None where nothing is wrong, or none is left."""
    if not whole.broken:
        strict = replace(whole, options=replace(whole.options, skip_bad_rows=False))
        with suppress(ValueError):  # what is wrong is found below
            return None, strict, encode(strict, loaded, max_seq_length=limit, name=name)
    bad, good = diagnose(whole, loaded, max_seq_length=limit, name=name, beside=beside)
    return bad, good, None if good is None else encode(good, loaded, max_seq_length=limit, name=name)


def plain_diagnosis(found: Diagnosis) -> BadRows:
    """A diagnosis as it is drawn."""
    return BadRows(found.heading, [(one.text, one.rows) for one in found.ailments], found.mends)


def _there(found: T | None, bad: Diagnosis | None) -> T:
    if found is None:
        raise ValueError(f"No row can be trained on, so none is shown as tokens.\n{visible(bad)}")
    return found


def _book(encoded: EncodedSet, report: DataReport, loaded: Loaded, read_left_out: Callable[[int], Encoded]) -> Book:
    columns, tokenizer = report.columns, loaded.tokenizer
    return Book(
        encoded.rows,
        encoded.account.left_out,
        read_left_out,
        numbers=columns.number,
        lengths=columns.length,
        cuts=columns.cut,
        first_alike=columns.first_alike,
        odd={
            "empty answer": columns.empty_answer,
            "no end token": columns.no_end,
            "two BOS": columns.double_bos,
            "unknown token": columns.unknown_token,
        },
        ordered={} if report.answers is None else _orders_of(report.answers),
        decode=tokenizer.decode,
        place=encoded.account.place,
        special=set(tokenizer.all_special_ids) | set(tokenizer.eos_token_ids),
    )


def _orders_of(answers: AnswerColumns) -> dict[str, np.ndarray]:
    """Pairs whose sides differ least come first; judged answers have no such order."""
    return {"closest": np.argsort(answers.apart, kind="stable")} if answers.second.any() else {}


def _left_out_reader(opened: Opened, encoded: EncodedSet, loaded: Loaded) -> Callable[[int], Encoded]:
    """A function that encodes a row the set does not hold, within the set's length."""
    limit = encoded.account.max_seq_length
    # Telling the format of the rows takes a pass over them.
    read = cache(row_kind(opened, loaded.tokenizer, loaded.family.placeholder).reader)

    def read_left_out(number: int) -> Encoded:
        (whole,) = encode_examples([read()(opened.source[number])], loaded.family)
        return replace(shortened(whole, limit), number=number)

    return read_left_out


def _plain(page: Page) -> str:
    """A page for a terminal, trained text in brackets."""
    head, tail = (
        "".join(f"⟦{shown(piece)}⟧" if piece.trained else piece.text for piece in pieces).replace("⟧⟦", "")
        for pieces in (page.head, page.tail)
    )
    why = f" [{page.why}]" if page.why else ""
    gap = f"\n{page.gap}\n" if page.gap else ""
    return f"{page.title}{why}, {page.caption}:\n{head}{gap}{tail}{page.cut_note}"
