"""An encoded set -> a report of what it looks like and what is odd about it: lengths, trained tokens, findings.

Rows are read a few at a time, once, and only a few numbers per row are kept. Nothing is changed or dropped here: each
finding says how many rows it is about, where the first ones are, and what to do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, final

import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from .encoding import EncodedSet
from .families.base import Encoded

Kind = Literal["left_out", "images_beyond", "cut", "empty_answer", "no_end", "double_bos", "unknown_token", "duplicate"]

AT_ONCE = 1024  # rows looked at together
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

    def __str__(self):
        return f"{self.text} {self.where} {self.remedy}"

    @property
    def where(self) -> str:
        """'(rows 3, 14, …)'."""
        more = ", …" if self.count > len(self.numbers) else ""
        return f"({'row' if self.count == 1 else 'rows'} {', '.join(map(str, self.numbers))}{more})"


@dataclass(frozen=True)
class Histogram:
    """Rows by their length in tokens before anything was cut."""

    width: int  # tokens a bar stands for: bar i counts lengths from i * width + 1 to (i + 1) * width
    counts: tuple[int, ...]  # the last bar counts everything beyond it as well


@dataclass(frozen=True, eq=False)
class Columns:
    """A few numbers about each encoded row, in the rows' order. Every array is (N,), over encoded rows."""

    number: np.ndarray  # int64, of the row in its source
    length: np.ndarray  # int64, tokens
    trained: np.ndarray  # int64, tokens
    cut: np.ndarray  # int64, tokens left out because the row was longer than max_seq_length
    first_alike: np.ndarray  # int64, index of the first row with the same tokens and mask; its own when there is none
    empty_answer: np.ndarray  # bool, a trained stretch holds nothing but whitespace and special tokens
    no_end: np.ndarray  # bool, the last trained stretch ends in no end token, though nothing was cut
    double_bos: np.ndarray  # bool, two BOS tokens open the row
    unknown_token: np.ndarray  # bool, some token is the tokenizer's unknown one

    @property
    def copies(self) -> np.ndarray:
        """(N,) bool: rows that were there before."""
        return self.first_alike != np.arange(len(self.first_alike))


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
        picture = f"1 |{bars}| {self.histogram.width * len(self.histogram.counts):,} tokens"
        found = [f"- {finding}" for finding in self.findings] or ["Nothing odd was found."]
        return "\n".join([*self.facts, picture, *found])


def inspect(encoded: EncodedSet, tokenizer: TokenizerWrapper) -> DataReport:
    """Go through `encoded`, made with `tokenizer`, once.

    Whether an answer is empty is told from its trained stretch, so with train_on="everything" it is not seen.
    """
    columns = _columns(encoded.rows, _Meanings(tokenizer))
    account = encoded.account
    full = columns.length + columns.cut
    return DataReport(
        name=account.name,
        source_rows=account.rows,
        encoded_rows=len(columns.number),
        in_pieces=account.in_pieces,
        max_seq_length=account.max_seq_length,
        tokens=int(columns.length.sum()),
        trained_tokens=int(columns.trained.sum()),
        shortest=int(full.min()),
        median=int(np.median(full)),
        longest=int(full.max()),
        histogram=_histogram(full, account.max_seq_length),
        findings=tuple(_findings(encoded, columns, tokenizer)),
        columns=columns,
    )


def _findings(encoded: EncodedSet, columns: Columns, tokenizer: TokenizerWrapper) -> Iterator[Finding]:
    """What is worth a warning, the gravest first."""
    account = encoded.account
    limit = account.max_seq_length

    def finding(kind: Kind, rows: np.ndarray, text: str, remedy: str) -> Iterator[Finding]:
        """One about the rows marked in `rows`, (N,) bool; none when there are none."""
        numbers = np.unique(columns.number[rows])
        if len(numbers):
            first = tuple(numbers[:NAMED_ROWS].tolist())
            yield Finding(kind, len(numbers), first, text.format(rows=_rows(len(numbers))), remedy)

    if account.left_out:
        yield Finding(
            "left_out",
            len(account.left_out),
            tuple(account.left_out[:NAMED_ROWS]),
            f"{_rows(len(account.left_out))} left out: within {limit:,} tokens nothing of the answer remains.",
            "Raise TrainingConfig(max_seq_length=...), or shorten what comes before the answer.",
        )
    if account.images_beyond:
        yield Finding(
            "images_beyond",
            len(account.images_beyond),
            tuple(account.images_beyond[:NAMED_ROWS]),
            f"{_rows(len(account.images_beyond))} left out: an image reaches beyond {limit:,} tokens, and none is cut.",
            "Raise TrainingConfig(max_seq_length=...), or make the images smaller.",
        )
    longest = int((columns.length + columns.cut).max())
    lost, most = int(columns.cut.sum()), int(columns.cut.max())
    yield from finding(
        "cut",
        columns.cut > 0,
        f"{{rows}} cut on the right at {limit:,} tokens: {lost:,} tokens lost, at most {most:,} of a row.",
        f"TrainingConfig(max_seq_length={longest}) keeps them whole; or drop them, for their answers do not end.",
    )
    yield from finding(
        "empty_answer",
        columns.empty_answer,
        "{rows} with an answer of nothing but whitespace.",
        "Drop them from train_dataset: they teach the model to say nothing.",
    )
    ends = _named(tokenizer, sorted(tokenizer.eos_token_ids))
    yield from finding(
        "no_end",
        columns.no_end,
        f"{{rows}} whose trained text does not end in an end token ({ends}).",
        "Pass FastModel.from_pretrained(chat_template=...) one that ends each answer, or add the token's id to "
        "input_ids and labels: the model is not shown how to stop.",
    )
    yield from finding(
        "double_bos",
        columns.double_bos,
        "{rows} opened by two BOS tokens.",
        f"Take {tokenizer.bos_token} out of the rows (formatting_func=...): it is put there for you.",
    )
    yield from finding(
        "unknown_token",
        columns.unknown_token,
        f"{{rows}} with {tokenizer.unk_token}, the tokenizer's unknown token, in place of some text.",
        "Replace those characters with formatting_func=..., or take a model whose tokenizer knows them.",
    )
    yield from finding(
        "duplicate",
        columns.copies,
        "{rows} repeating an earlier row exactly: each copy weighs again.",
        "Keep one of each in train_dataset, unless that is meant.",
    )


@final
class _Meanings:
    """What token ids mean to the checks, learnt as they are met."""

    def __init__(self, tokenizer: TokenizerWrapper):
        self.decode = tokenizer.decode
        self.bos: int | None = tokenizer.bos_token_id
        self.ends = sorted(tokenizer.eos_token_ids)
        # GPT-2 has one token for everything, and it stands at the end of every row.
        is_other = tokenizer.unk_token_id in {self.bos, *self.ends}
        self.unknown: int | None = None if is_other else tokenizer.unk_token_id
        self._special = set(tokenizer.all_special_ids) | set(self.ends)
        self._speaks: dict[int, bool] = {}

    def speaks(self, tokens: np.ndarray) -> np.ndarray:
        """(n,) ids -> (n,) bool: neither special nor whitespace alone."""
        kinds, which = np.unique(tokens, return_inverse=True)
        return np.array([self._says_something(kind) for kind in kinds.tolist()], dtype=bool)[which]

    def _says_something(self, token: int) -> bool:
        if token not in self._speaks:
            self._speaks[token] = token not in self._special and bool(self.decode([token]).strip())
        return self._speaks[token]


def _columns(rows: Sequence[Encoded], meanings: _Meanings) -> Columns:
    first_of: dict[bytes, int] = {}
    parts: list[Columns] = []
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        alike = [first_of.setdefault(row.digest, start + place) for place, row in enumerate(some)]
        parts.append(_chunk_columns(some, np.array(alike), meanings))
    whole = Columns(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Columns)))
    goes_on = np.append(whole.number[1:] == whole.number[:-1], False)  # a piece of raw text that others follow
    return replace(whole, no_end=whole.no_end & ~goes_on)


def _chunk_columns(rows: Sequence[Encoded], first_alike: np.ndarray, meanings: _Meanings) -> Columns:
    """The numbers of a few rows, whose n tokens lie end to end in the arrays here."""
    length = np.array([len(row.tokens) for row in rows])
    cut = np.array([row.cut for row in rows])
    ends = np.cumsum(length)
    starts = ends - length
    tokens = np.concatenate([row.tokens for row in rows])  # (n,)
    trained = np.concatenate([row.loss_mask for row in rows])  # (n,)
    trained[starts] = False  # the first token is predicted from nothing
    row_of = np.repeat(np.arange(len(rows)), length)  # (n,)
    place = np.arange(len(tokens))  # (n,)
    speaks = np.zeros(len(tokens), dtype=bool)
    speaks[trained] = meanings.speaks(tokens[trained])

    opens = trained & ~np.append(False, trained[:-1])  # (n,) first token of each trained stretch
    stretch_of = np.cumsum(opens)[trained] - 1  # for each trained token
    stretches = int(opens.sum())
    is_empty = np.bincount(stretch_of, weights=speaks[trained], minlength=stretches) == 0
    reaches_cut = np.zeros(stretches, dtype=bool)  # what was cut off may have said something
    reaches_cut[stretch_of[(cut > 0)[row_of[trained]] & (place == (ends - 1)[row_of])[trained]]] = True
    empty_answer = np.zeros(len(rows), dtype=bool)
    empty_answer[row_of[opens][is_empty & ~reaches_cut]] = True

    last_end = np.maximum.reduceat(np.where(trained & np.isin(tokens, meanings.ends), place, -1), starts)
    speaks_on = np.logical_or.reduceat(speaks & (place > last_end[row_of]), starts)
    second = tokens[np.minimum(starts + 1, ends - 1)]
    nowhere = np.zeros(len(rows), dtype=bool)
    return Columns(
        number=np.array([row.number for row in rows]),
        length=length,
        trained=np.add.reduceat(trained, starts, dtype=np.int64),
        cut=cut,
        first_alike=first_alike,
        empty_answer=empty_answer,
        no_end=((last_end < 0) | speaks_on) & (cut == 0),
        double_bos=nowhere
        if meanings.bos is None
        else (tokens[starts] == second) & (second == meanings.bos) & (length > 1),
        unknown_token=nowhere
        if meanings.unknown is None
        else np.logical_or.reduceat(tokens == meanings.unknown, starts),
    )


def _histogram(lengths: np.ndarray, limit: int) -> Histogram:
    """Up to `limit`, or to the longest row where that is far from it; and not far beyond, where one row is enormous."""
    longest = int(lengths.max())
    reach = limit if 2 * longest >= limit else longest
    width = max(1, -(-reach // BINS))
    bars = min(-(-max(longest, reach) // width), 2 * BINS)
    counts = np.bincount(np.minimum((lengths - 1) // width, bars - 1), minlength=bars)
    return Histogram(width=width, counts=tuple(counts.tolist()))


def _named(tokenizer: TokenizerWrapper, ids: list[int]) -> str:
    return ", ".join(tokenizer.convert_ids_to_tokens(ids))


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
