"""Rows -> token ids and loss masks, once, before training, with an account of everything that was cut or left out.

Rows are read, rendered and tokenized a few hundred at a time. Of a large set the result goes to the cache folder, keyed
by all it follows from, and is read from there: memory stays flat, and the next time nothing is tokenized.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ..data.encoded import Encoded
from ..data.examples import Example
from ..data.formats import BadRow, BadRows, FormattingFunc, Markers, TrainOn, formatted, reader
from ..data.formats.documents import BadImages, document_reader, image_references
from ..data.formats.pictures import references
from ..data.images import InMemory, state_of
from ..data.pretraining import MultimodalPretrain, reach_of_documents
from ..data.reach import Reach
from ..data.sources import Row, reach_of
from ..data.tokenizer_state import bring_up_to_date
from ..machine.private import new_private_folder
from ..machine.progress_bars import progress
from ..machine.sealed import Damaged
from ..models.families.base import NotEncodable
from ..models.families.tables import BeyondTable, check_row
from ..models.loaded import Loaded
from . import stored_rows
from .tally import Account
from .token_cache import cached_folder, key_of, prune
from .truncation import fitted, is_left_out

AT_ONCE = 512  # rows tokenized together
CACHED_ROWS = 1000  # a set of as many is kept on the disk

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedSet:
    """The rows of one source as numbers."""

    rows: Sequence[Encoded]  # in the source's order; a raw text may be several, a row left out is none
    account: Account

    @property
    def notices(self) -> list[str]:
        """Sentences about what did not fit."""
        return list(self.account.by_kind().values())


def encode_rows(
    rows: Sequence[Row],
    loaded: Loaded,
    *,
    max_seq_length: int,
    name: str = "rows",
    format: str | None = None,
    train_on: TrainOn = "assistant",
    response_markers: Markers | None = None,
    formatting_func: FormattingFunc | None = None,
    places: Sequence[int] | None = None,
    pretrain: MultimodalPretrain | None = None,
    reach: Reach | None = None,
) -> EncodedSet:
    """Encode every row of `rows`; `format` to `reach` are those of `row_reader`.

    A row longer than `max_seq_length` tokens is cut on the right, and left out when its whole answer is, or when an
    image would be; raw text is cut into pieces instead, and a document with images is left out or refused, as
    `pretrain.excess_length_strategy` says. Where `rows` are part of a source, `places` says which: its
    numbers are the ones reported.
    Raises ValueError when no row is left, and for rows `formats.reader` refuses.
    """
    bring_up_to_date(loaded.tokenizer)
    max_seq_length = loaded.family.tables.longest(max_seq_length)
    account = Account(name=name, max_seq_length=max_seq_length)
    reach = _reach(rows, pretrain) if reach is None else reach

    def encode(account: Account) -> Iterator[Encoded]:
        read = row_reader(
            rows,
            loaded,
            format=format,
            train_on=train_on,
            response_markers=response_markers,
            formatting_func=formatting_func,
            pretrain=pretrain,
            reach=reach,
        )
        return _encoded(rows, range(len(rows)) if places is None else places, loaded, read, account, pretrain)

    folder = None
    if len(rows) >= CACHED_ROWS:
        settings = [format, train_on, response_markers, max_seq_length, places and list(places)]
        settings += [pretrain.as_plain] if pretrain else []
        try:
            stated = _with_images(rows, formatting_func, loaded, pretrain, reach)
            folder = cached_folder(key_of(stated, loaded, settings))
        except InMemory:
            account.kept_in_memory = True
        except OSError as error:
            account.not_cached = str(error)
    if folder is None:
        result = EncodedSet(list(encode(account)), account)
    else:
        result = _through_cache(folder, encode, account, reach)
    if not result.rows:
        why = f"No row of {name} keeps a token of its answer within {max_seq_length} tokens; raise max_seq_length."
        raise ValueError(" ".join([why, *result.notices]))
    return result


def row_encoder(
    head: Sequence[Row],
    loaded: Loaded,
    account: Account,
    *,
    pretrain: MultimodalPretrain | None = None,
    **options: Any,
) -> Callable[[int, Row], list[Encoded]]:
    """The function that encodes one row of a stream that begins with `head`; `options` are those of `row_reader`.

    It takes the row's number too, counts in `account`, gives pieces as `encode_rows` does, and raises ValueError for a
    row that cannot be trained on.
    """
    bring_up_to_date(loaded.tokenizer)
    read = row_reader(head, loaded, pretrain=pretrain, **options)

    def encode(number: int, row: Row) -> list[Encoded]:
        account.rows += 1
        try:
            example = read(row)
            whole = _whole(example, loaded)
        except BadRow as error:
            if is_left_out(number, error, pretrain, account):
                return []
            raise ValueError(f"Row {number} of {account.name} cannot be trained on: {error}") from error
        try:
            check_row(whole, loaded.family.tables, loaded.tokenizer)
        except BeyondTable as error:
            raise ValueError(f"Row {number} of {account.name} cannot be trained on: {error}") from error
        account.note_unread(number, example.unread)
        return list(fitted(replace(whole, number=number), example, pretrain, account))

    return encode


def row_reader(
    rows: Sequence[Row],
    loaded: Loaded,
    *,
    format: str | None = None,
    train_on: TrainOn = "assistant",
    response_markers: Markers | None = None,
    formatting_func: FormattingFunc | None = None,
    pretrain: MultimodalPretrain | None = None,
    reach: Reach | None = None,
) -> Callable[[Row], Example]:
    """The function that reads one of `rows`: that of `formats.reader`, or of documents where `pretrain` says so.

    With `pretrain` the others must have been left out; `pretraining.check` sees to it. `reach` says which files rows
    may name as images; None: those `rows` may.
    """
    reach = _reach(rows, pretrain) if reach is None else reach
    if pretrain is not None and loaded.family.placeholder is not None:
        return document_reader(pretrain, loaded.tokenizer, loaded.family.placeholder, reach=reach)
    return reader(
        rows,
        loaded.tokenizer,
        format,
        train_on=train_on,
        response_markers=response_markers,
        formatting_func=formatting_func,
        placeholder=loaded.family.placeholder,
        reach=reach,
    )


def _reach(rows: Sequence[Row], pretrain: MultimodalPretrain | None) -> Reach:
    return reach_of(rows) if pretrain is None else reach_of_documents(pretrain, reach_of(rows))


def _with_images(
    rows: Sequence[Row],
    formatting_func: FormattingFunc | None,
    loaded: Loaded,
    pretrain: MultimodalPretrain | None,
    reach: Reach,
) -> Iterator[Row | list[str]]:
    """Each row, and behind it the states of its images. Raises InMemory for an image that is no file."""
    for row in rows:
        row = formatted(row, formatting_func)
        yield row
        if loaded.family.placeholder is not None:
            named = references(row) if pretrain is None else image_references(row, pretrain)
            yield [state_of(value, reach) for value in named]


def _through_cache(
    folder: Path, encode: Callable[[Account], Iterator[Encoded]], account: Account, reach: Reach
) -> EncodedSet:
    """What `folder` holds; filled with what `encode` gives, and its account, when it holds nothing whole.

    `reach` is what their images were referred to with. Where the disk does not take the rows, or does not give
    them back, they stay in memory.
    """
    with contextlib.suppress(Damaged):  # nothing there, or not what was written
        return _read(folder, account.name, reach)
    counts = replace(account)
    try:
        with new_private_folder(folder) as partial:
            stored_rows.write_rows(partial, encode(counts), lambda: asdict(counts))
        prune(folder)
        return _read(folder, account.name, reach)
    except (OSError, Damaged) as error:
        account.not_cached = str(error)
    return EncodedSet(list(encode(account)), account)


def _read(folder: Path, name: str, reach: Reach) -> EncodedSet:
    rows, facts = stored_rows.read_rows(folder, reach=reach)
    return EncodedSet(rows, Account(**{**facts, "name": name}))


def _whole(example: Example, loaded: Loaded) -> Encoded:
    """`example` encoded. Raises BadImages for one the model's family refuses."""
    try:
        [row] = loaded.family.encode([example])
    except NotEncodable as error:
        raise BadImages(str(error)) from error
    return row


def _encoded(
    rows: Sequence[Row],
    places: Sequence[int],
    loaded: Loaded,
    read: Callable[[Row], Example],
    account: Account,
    pretrain: MultimodalPretrain | None,
) -> Iterator[Encoded]:
    """The rows that are trained on, one after another; `account` is complete when the last one was given."""
    bad = BadRows()
    numbered = zip(places, progress(rows, f"Tokenizing {account.name}", total=len(rows)), strict=True)
    for some in _chunks(numbered, AT_ONCE):
        examples: dict[int, Example] = {}
        whole: list[Encoded] = []
        for number, row in some:
            try:
                example = read(row)
                if loaded.family.placeholder is not None:
                    whole.append(_whole(example, loaded))
            except BadRow as error:
                if not is_left_out(number, error, pretrain, account):
                    bad.add(number, error)
            else:
                examples[number] = example
                account.note_unread(number, example.unread)
        if loaded.family.placeholder is None:
            whole = loaded.family.encode(list(examples.values()))  # all at once: the tokenizer has threads
        for (number, example), row in zip(examples.items(), whole, strict=True):
            try:
                check_row(row, loaded.family.tables, loaded.tokenizer)
            except BeyondTable as error:
                bad.add(number, BadRow(str(error)))
                continue
            yield from fitted(replace(row, number=number), example, pretrain, account)
    account.rows = len(rows)
    bad.check(len(rows))


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
