"""An encoded set -> a report of what it looks like and what is odd about it: lengths, trained tokens, findings.

It is made of a few numbers about each row (`row_facts.py`). Nothing is changed or dropped here: each finding says how
many rows it is about, where the first ones are, and what to do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..data.sources import Place, named, row_number
from ..machine.inert import one_line
from .answer_facts import AnswerColumns, answer_columns_of, remarks
from .encoding import EncodedSet
from .row_facts import Columns, columns_of
from .tally import BARE, BARE_MENDED, MARKUP, MARKUP_MENDED, MOST_NAMED, Account

Kind = Literal[
    "left_out",
    "never_supervised",
    "images_beyond",
    "cut",
    "empty_answer",
    "no_end",
    "double_bos",
    "unknown_token",
    "duplicate",
    "bare",
    "markup",
    "unread",
    "length_bias",
    "both_sides",
    "labels",
]

NAMED_ROWS = 5  # row numbers a finding gives
BINS = 24  # bars of the histogram up to max_seq_length, or to the longest row where that is less than half of it
BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Finding:
    """One thing that is odd about a set."""

    kind: Kind
    count: int  # rows
    numbers: tuple[int, ...]  # of the first few of them in their source
    text: str  # one sentence
    remedy: str  # one line that names the argument or function to use
    place: Callable[[int], Place] = field(default=row_number, repr=False, compare=False)  # of a row, by its number

    def __str__(self):
        return one_line(f"{self.text} {self.where} {self.remedy}")

    @property
    def where(self) -> str:
        """'(rows 3, 14, …)'."""
        more = ", …" if self.count > len(self.numbers) else ""
        return f"({named(list(map(self.place, self.numbers)))}{more})"


@dataclass(frozen=True)
class Histogram:
    """Rows by their length in tokens before anything was cut."""

    width: int  # tokens a bar stands for: bar i counts lengths from i * width + 1 to (i + 1) * width
    counts: tuple[int, ...]  # the last bar counts everything beyond it as well


@dataclass(frozen=True)
class DataReport:
    """What a whole encoded set looks like; `str(report)` is made for a terminal."""

    name: str  # of the source
    source_rows: int
    encoded_rows: int
    in_pieces: int  # raw texts that became several rows
    max_seq_length: int
    tokens: int
    trained_tokens: int
    shortest: int  # tokens of a row before it was cut, as in the next two
    median: int
    longest: int
    histogram: Histogram
    findings: tuple[Finding, ...]
    columns: Columns = field(repr=False, compare=False)
    answers: AnswerColumns | None = field(default=None, repr=False, compare=False)  # None: rows that are no answers

    @property
    def trained_share(self) -> float:
        """Trained tokens over all tokens."""
        return self.trained_tokens / self.tokens

    @property
    def facts(self) -> list[str]:
        """Sentences on what the set is, odd or not."""
        lengths = (
            f"Every row has {self.longest:,} tokens"
            if self.shortest == self.longest
            else f"A row has {self.shortest:,} to {self.longest:,} tokens, half of them at most {self.median:,}"
        )
        became = "" if self.encoded_rows == self.source_rows else f", {self.encoded_rows:,} once encoded"
        pieces = (
            [f"{_rows(self.in_pieces)} of raw text did not fit and came in pieces; no token is lost."]
            if self.in_pieces
            else []
        )
        return [
            f"{self.name}: {_rows(self.source_rows)}{became}, {self.tokens:,} tokens, {self.trained_tokens:,} of them "
            f"trained ({self.trained_share:.1%}).",
            f"{lengths}; max_seq_length is {self.max_seq_length:,}.",
            *pieces,
        ]

    def __str__(self):
        tallest = max(self.histogram.counts)
        bars = "".join(BARS[-(-count * (len(BARS) - 1) // tallest)] for count in self.histogram.counts)
        drawing = f"1 |{bars}| {self.histogram.width * len(self.histogram.counts):,} tokens"
        found = [f"- {finding}" for finding in self.findings] or ["Nothing odd was found."]
        return "\n".join([*map(one_line, self.facts), drawing, *found])


def inspect(encoded: EncodedSet, tokenizer: TokenizerWrapper) -> DataReport:
    """Go through `encoded`, made with `tokenizer`, once.

    Whether an answer is empty is told from its trained stretch, so with train_on="everything" it is not seen.
    """
    columns, answers = columns_of(encoded.rows, tokenizer), answer_columns_of(encoded.rows)
    account = encoded.account
    full = columns.length + columns.cut
    return DataReport(
        name=account.name,
        source_rows=account.rows,
        encoded_rows=len(columns.number),
        in_pieces=account.in_pieces,
        max_seq_length=account.max_seq_length,
        tokens=int(columns.tokens.sum()),
        trained_tokens=int(columns.trained.sum()),
        shortest=int(full.min()),
        median=int(np.median(full)),
        longest=int(full.max()),
        histogram=_histogram(full, account.max_seq_length),
        findings=tuple(_findings(encoded, columns, answers, tokenizer)),
        columns=columns,
        answers=answers,
    )


def _findings(
    encoded: EncodedSet, columns: Columns, answers: AnswerColumns | None, tokenizer: TokenizerWrapper
) -> Iterator[Finding]:
    """What is worth a warning, the gravest first."""
    account = encoded.account
    of_answers = [] if answers is None else [_Odd(*remark) for remark in remarks(answers)]
    bare = _Odd("bare", account.bare, f"that {BARE}", BARE_MENDED)
    markup = _Odd("markup", account.markup, f"that {MARKUP}", MARKUP_MENDED)
    for odd in (*_left_out(account), bare, markup, *_odd(columns, account, tokenizer), *of_answers):
        if odd.numbers:
            text, first = f"{_rows(len(odd.numbers))} {odd.text}", tuple(odd.numbers[:NAMED_ROWS])
            yield Finding(odd.kind, len(odd.numbers), first, text, odd.remedy, account.place)
    for name, (count, first) in list(account.unread.items())[:MOST_NAMED]:
        text = f"{_rows(count)} with {name}, which is not read and changes nothing."
        remedy = "Write what matters of it into the turns with formatting_func=..., or drop it."
        yield Finding("unread", count, (first,), text, remedy, account.place)


class _Odd(NamedTuple):
    """What would be a finding about the rows of those numbers, were there any."""

    kind: Kind
    numbers: list[int]
    text: str  # behind the count of rows
    remedy: str


def _left_out(account: Account) -> list[_Odd]:
    limit, longest = account.max_seq_length, account.longest_left_out or "..."
    return [
        _Odd(
            "left_out",
            account.answer_beyond,
            f"left out: within {limit:,} tokens nothing of the answer remains.",
            f"Raise TrainingConfig(max_seq_length={longest}), or shorten what comes before the answer.",
        ),
        _Odd(
            "never_supervised",
            account.never_supervised,
            f"left out: of the first, {account.never_supervised_why}.",
            "Give them more tokens to train on, or drop them from train_dataset.",
        ),
        _Odd(
            "images_beyond",
            account.images_beyond,
            f"left out: an image reaches beyond {limit:,} tokens, and none is cut.",
            "Raise TrainingConfig(max_seq_length=...), or make the images smaller.",
        ),
    ]


def _odd(columns: Columns, account: Account, tokenizer: TokenizerWrapper) -> list[_Odd]:
    limit, longest = account.max_seq_length, max(int((columns.length + columns.cut).max()), account.longest_left_out)
    lost, most = int(columns.cut.sum()), int(columns.cut.max())
    ends = ", ".join(tokenizer.convert_ids_to_tokens(sorted(tokenizer.eos_token_ids)))

    def numbers(marked: np.ndarray) -> list[int]:
        """Of the rows marked in (N,) bool, each once."""
        return np.unique(columns.number[marked]).tolist()

    return [
        _Odd(
            "cut",
            numbers(columns.cut > 0),
            f"cut on the right at {limit:,} tokens: {lost:,} tokens lost, at most {most:,} of a row.",
            f"TrainingConfig(max_seq_length={longest}) keeps them whole; or drop them, for their answers do not end.",
        ),
        _Odd(
            "empty_answer",
            numbers(columns.empty_answer),
            "with an answer of nothing but whitespace.",
            "Drop them from train_dataset: they teach the model to say nothing.",
        ),
        _Odd(
            "no_end",
            numbers(columns.no_end),
            f"whose trained text does not end in an end token ({ends}).",
            "Pass FastModel.from_pretrained(chat_template=...) one that ends each answer, or add the token's id to "
            "input_ids and labels: the model is not shown how to stop.",
        ),
        _Odd(
            "double_bos",
            numbers(columns.double_bos),
            "opened by two BOS tokens.",
            f"Take {tokenizer.bos_token} out of the rows (formatting_func=...): it is put there for you.",
        ),
        _Odd(
            "unknown_token",
            numbers(columns.unknown_token),
            f"with {tokenizer.unk_token}, the tokenizer's unknown token, in place of some text.",
            "Replace those characters with formatting_func=..., or take a model whose tokenizer knows them.",
        ),
        _Odd(
            "duplicate",
            numbers(columns.copies),
            "repeating an earlier row exactly: each copy weighs again.",
            "Keep one of each in train_dataset, unless that is meant.",
        ),
    ]


def _histogram(lengths: np.ndarray, limit: int) -> Histogram:
    """Up to `limit`, or to the longest row where that is far from it; and not far beyond, where one row is enormous."""
    longest = int(lengths.max())
    reach = limit if 2 * longest >= limit else longest
    width = max(1, -(-reach // BINS))
    bars = min(-(-max(longest, reach) // width), 2 * BINS)
    counts = np.bincount(np.minimum((lengths - 1) // width, bars - 1), minlength=bars)
    return Histogram(width=width, counts=tuple(counts.tolist()))


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
