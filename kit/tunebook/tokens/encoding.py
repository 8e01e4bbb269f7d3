"""Rows -> token ids and loss masks, once, before training, with an account of everything that was cut or left out.

Rows are read, rendered and tokenized a few hundred at a time. Of a large set the result goes to the cache folder, keyed
by all it follows from, and is read from there: memory stays flat, and the next time nothing is tokenized.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ..data.answers import Answers
from ..data.encoded import Encoded
from ..data.examples import Example
from ..data.formats import BadRow, BadRows, formatted
from ..data.formats.documents import BadImages
from ..data.images import InMemory, state_of
from ..data.opened import Opened, ReadingOptions, named_source, opened
from ..data.reach import Reach
from ..data.row_kinds import RowKind, row_kind
from ..data.sources import Row
from ..data.tokenizer_state import bring_up_to_date
from ..machine.entries import prune
from ..machine.private import new_private_folder
from ..machine.progress_bars import progress
from ..machine.sealed import Damaged
from ..models.families.base import NotEncodable
from ..models.families.tables import BeyondTable, check_row
from ..models.loaded import Loaded
from . import stored_rows
from .answers import encode_examples, is_bare
from .tally import Account
from .thoughts import has_thoughts
from .token_cache import cached_folder, key_of
from .truncation import fitted, is_left_out

AT_ONCE = 512  # rows tokenized together
CACHED_ROWS = 1000  # a set of as many is kept on the disk

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedSet:
    """The rows of one source as numbers."""

    rows: Sequence[Encoded]  # in the source's order; a raw text may be several, a row left out is none
    account: Account
    said: tuple[str, ...] = ()  # what became of its source before any row was encoded

    @property
    def notices(self) -> list[str]:
        """Sentences about what did not fit."""
        return [*self.said, *self.account.by_kind().values()]


def encode(opened: Opened, loaded: Loaded, *, max_seq_length: int, name: str = "rows") -> EncodedSet:
    """Encode every row of `opened`.

    A row longer than `max_seq_length` tokens is cut on the right, and left out when its whole answer is, or when an
    image would be; raw text is cut into pieces instead, and a document with images is left out or refused, as its
    `excess_length_strategy` says. The numbers reported are those of the whole source.
    Raises ValueError when no row is left, and RefusedRows for rows that cannot be trained on.
    """
    bring_up_to_date(loaded.tokenizer)
    longest = loaded.family.tables.longest(max_seq_length)
    account = Account(name=name, max_seq_length=longest, place=opened.place)
    kind = row_kind(opened, loaded.tokenizer, loaded.family.placeholder)

    def encoded(account: Account) -> Iterator[Encoded]:
        bad = BadRows()
        yield from _encoded(opened, kind, loaded, account, bad)
        bad.check(len(opened.rows), name=named_source(opened.source, name), place=opened.place, can_skip=True)

    folder = _cache_of(opened, kind, loaded, account) if len(opened.rows) >= CACHED_ROWS else None
    if folder is None:
        result = EncodedSet(list(encoded(account)), account)
    else:
        result = _through_cache(folder, encoded, account, opened.reach)
    if not result.rows:
        why = f"No row of {name} keeps a token of its answer within {account.max_seq_length} tokens"
        if len(account.never_supervised) == account.rows:  # a greater length would not help
            why = f"No row of {name} has a token to train on"
        else:
            why += "; raise max_seq_length"
        raise ValueError(" ".join([f"{why}.", *result.notices]))
    return result


def encode_rows(
    rows: Sequence[Row], loaded: Loaded, *, max_seq_length: int, name: str = "rows", **options: Any
) -> EncodedSet:
    """Encode rows that are at hand, as `encode` does; `options` are those of `ReadingOptions`."""
    return encode(opened(rows, ReadingOptions(**options)), loaded, max_seq_length=max_seq_length, name=name)


def find_bad(opened: Opened, loaded: Loaded, *, max_seq_length: int, name: str) -> BadRows:
    """The rows of `opened` that `encode` refuses, all of them and whatever `skip_bad_rows` says; none is kept."""
    bring_up_to_date(loaded.tokenizer)
    account = Account(name=name, max_seq_length=loaded.family.tables.longest(max_seq_length))
    strict = replace(opened, options=replace(opened.options, skip_bad_rows=False))
    bad = BadRows()
    for _ in _encoded(strict, row_kind(strict, loaded.tokenizer, loaded.family.placeholder), loaded, account, bad):
        pass
    return bad


def row_encoder(head: Opened, loaded: Loaded, account: Account) -> Callable[[int, Row], list[Encoded]]:
    """The function that encodes one row of a stream that begins with `head`.

    It takes the row's number too, counts in `account`, gives pieces as `encode` does, and raises ValueError for a row
    that cannot be trained on.
    """
    bring_up_to_date(loaded.tokenizer)
    kind = row_kind(head, loaded.tokenizer, loaded.family.placeholder)
    read = kind.reader()

    def encode_one(number: int, row: Row) -> list[Encoded]:
        account.rows += 1
        try:
            example = read(row)
            whole = _whole(example, loaded)
        except BadRow as error:
            if is_left_out(number, error, kind, account):
                return []
            raise _refused(number, account, error) from error
        try:
            check_row(whole, loaded.family.tables, loaded.tokenizer)
        except BeyondTable as error:
            if is_left_out(number, BadRow(str(error)), kind, account):
                return []
            raise _refused(number, account, error) from error
        account.note_unread(number, example.unread)
        account.note_thoughts(has_thoughts(example, loaded.tokenizer))
        account.note_form(number, bare=is_bare(example, loaded.tokenizer), markup=example.markup)
        return list(fitted(replace(whole, number=number), example, kind, account))

    return encode_one


def _refused(number: int, account: Account, error: ValueError) -> ValueError:
    return ValueError(
        f"{account.placed(number)} of {account.name} cannot be trained on: {error} skip_bad_rows=True leaves such rows "
        "out."
    )


def _cache_of(opened: Opened, kind: RowKind, loaded: Loaded, account: Account) -> Path | None:
    """Where these rows are kept, or are to be; None, and counted in `account`, where they cannot be known again."""
    options, places = opened.options.as_plain, opened.places
    settings = [*options, account.max_seq_length, None if places is None else list(places)]
    if opened.options.skip_bad_rows:  # what is kept has fewer rows then, where the other is refused
        settings.append("skip_bad_rows")
    try:
        return cached_folder(key_of(_with_images(opened, kind), loaded, settings))
    except BadRow:  # formatting_func fails on a row; it is named when the rows are read
        return None
    except InMemory:
        account.kept_in_memory = True
    except OSError as error:
        account.not_cached = str(error)
    return None


def _with_images(opened: Opened, kind: RowKind) -> Iterator[Row | list[str]]:
    """Each row, and behind it the states of its images. Raises InMemory for an image that is no file."""
    for row in opened.rows:
        row = formatted(row, opened.options.formatting_func)
        yield row
        yield [state_of(value, opened.reach) for value in kind.image_references(row)]


def _through_cache(
    folder: Path, encode: Callable[[Account], Iterator[Encoded]], account: Account, reach: Reach
) -> EncodedSet:
    """What `folder` holds; filled with what `encode` gives, and its account, when it holds nothing whole.

    `reach` is what their images were referred to with. Where the disk does not take the rows, or does not give
    them back, they stay in memory.
    """
    with contextlib.suppress(Damaged):  # nothing there, or not what was written
        return _read(folder, account, reach)
    counts = Account(name=account.name, max_seq_length=account.max_seq_length, place=account.place)
    try:
        with new_private_folder(folder) as partial:
            stored_rows.write_rows(partial, encode(counts), lambda: counts.as_plain)
        prune(folder)
        return _read(folder, account, reach)
    except (OSError, Damaged) as error:
        account.not_cached = str(error)
    return EncodedSet(list(encode(account)), account)


def _read(folder: Path, account: Account, reach: Reach) -> EncodedSet:
    rows, facts = stored_rows.read_rows(folder, reach=reach)
    return EncodedSet(rows, Account(**{**facts, "name": account.name}, place=account.place))


def _whole(example: Example | Answers, loaded: Loaded) -> Encoded:
    """`example` encoded. Raises BadImages for one the model's family refuses."""
    try:
        [row] = encode_examples([example], loaded.family)
    except NotEncodable as error:
        raise BadImages(str(error)) from error
    return row


def _encoded(opened: Opened, kind: RowKind, loaded: Loaded, account: Account, bad: BadRows) -> Iterator[Encoded]:
    """The rows that are trained on, one after another; `account` and `bad` are complete when the last was given."""
    rows, read = opened.rows, kind.reader()
    places = range(len(rows)) if opened.places is None else opened.places
    numbered = zip(places, progress(rows, f"Tokenizing {account.name}", total=len(rows)), strict=True)
    for some in _chunks(numbered, AT_ONCE):
        examples: dict[int, Example | Answers] = {}
        whole: list[Encoded] = []
        for number, row in some:
            try:
                example = read(row)
                if loaded.family.placeholder is not None:
                    whole.append(_whole(example, loaded))
            except BadRow as error:
                if not is_left_out(number, error, kind, account):
                    bad.add(number, error)
            else:
                examples[number] = example
                account.note_unread(number, example.unread)
                account.note_thoughts(has_thoughts(example, loaded.tokenizer))
                account.note_form(number, bare=is_bare(example, loaded.tokenizer), markup=example.markup)
        if loaded.family.placeholder is None:
            whole = encode_examples(list(examples.values()), loaded.family)  # at once: the tokenizer has threads
        for (number, example), row in zip(examples.items(), whole, strict=True):
            try:
                check_row(row, loaded.family.tables, loaded.tokenizer)
            except BeyondTable as error:
                refused = BadRow(str(error))
                if not is_left_out(number, refused, kind, account):
                    bad.add(number, refused)
                continue
            yield from fitted(replace(row, number=number), example, kind, account)
    account.rows = len(rows)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
