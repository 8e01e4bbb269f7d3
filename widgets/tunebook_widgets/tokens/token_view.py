"""`TokenView`: rows exactly as the model reads them, the tokens it is trained to write marked.

What comes in are a trainer, or a model and rows; what goes out is static HTML, with plain text beside it for places
that show none, and on request a live browser of all rows. The kit encodes and checks the rows, as for training: the
mask that is shown is the one the loss uses.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from tunebook.data.encoded import Encoded
from tunebook.data.formats import FormattingFunc, Markers, TrainOn
from tunebook.data.opened import Opened, ReadingOptions, open_rows
from tunebook.data.row_kinds import row_kind
from tunebook.data.sources import Source
from tunebook.models.loaded import Loaded
from tunebook.tokens.answer_facts import AnswerColumns
from tunebook.tokens.answers import encode_examples, shortened
from tunebook.tokens.data_report import DataReport, inspect
from tunebook.tokens.encoding import EncodedSet, encode
from tunebook.trainer import HoldsModel, Trainer

from .token_book import Book, Page
from .token_browser import TokenBrowser
from .token_html import Bars, Card, shown, static_html


class TokenView:
    """Show a trainer's rows as they will be trained, or any rows as a model would read them.

        >>> view = TokenView(trainer)
        >>> view = TokenView(model, rows[:3])

    The `rows` are anything `sources.read_rows` opens; `format`, `formatting_func` and `response_markers` are those of
    the Trainer, `train_on`, `max_seq_length` and `thinking` those of TrainingConfig; a trainer brings its own. As
    the last expression of a cell it shows what the set is like and a handful of rows, and stays in the saved
    notebook; `browse()` shows all rows, for as long as the kernel runs. `report` is what the check found. Raises
    ValueError as the Trainer does for rows that cannot be trained on.
    """

    def __init__(
        self,
        model: HoldsModel | Trainer,
        rows: Source | None = None,
        *,
        format: str | None = None,
        train_on: TrainOn = "assistant",
        response_markers: Markers | None = None,
        formatting_func: FormattingFunc | None = None,
        max_seq_length: int | None = None,
        thinking: bool | None = None,
    ):
        options = ReadingOptions(
            format=format,
            train_on=train_on,
            response_markers=response_markers,
            formatting_func=formatting_func,
            thinking=thinking,
        )
        if not isinstance(model, Trainer):
            if rows is None:
                raise ValueError("TokenView was given a model and no rows; pass TokenView(model, rows), or a trainer.")
            opened = open_rows(rows, "data", options)
            limit = max_seq_length or model.loaded.max_seq_length
            encoded = encode(opened, model.loaded, max_seq_length=limit, name="data")
        elif rows is not None or max_seq_length is not None or options != ReadingOptions():
            raise ValueError("A trainer brings its own rows and settings; pass TokenView(trainer) and nothing else.")
        else:
            opened, encoded = model.data.opened, model.data.train
        self.report: DataReport = inspect(encoded, model.loaded.tokenizer)
        self._book = _book(encoded, self.report, model.loaded, _left_out_reader(opened, encoded, model.loaded))

    def __repr__(self):
        return "\n\n".join([str(self.report), *map(_plain, self._book.chosen())])

    def browse(self) -> TokenBrowser:
        """A widget to leaf through all rows, those that are left out among them; it needs the kernel."""
        return TokenBrowser(self._book, self.report.name)

    def _repr_html_(self) -> str:
        report = self.report
        bars = Bars(report.histogram.width, report.histogram.counts, report.max_seq_length)
        findings = [(f"{finding.text} {finding.where}", finding.remedy) for finding in report.findings]
        return static_html(Card(report.facts, bars, findings), self._book.chosen())


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
    return f"Row {page.number}{why}, {page.caption}:\n{head}{gap}{tail}{page.cut_note}"
