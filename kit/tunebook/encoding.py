"""Rows -> token ids and loss masks, once, before training, with an account of everything that was cut or left out.

Rows are read, rendered and tokenized a few hundred at a time. Of a large set the result goes to the cache folder, keyed
by all it follows from, and is read from there: memory stays flat, and the next time nothing is tokenized.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from . import encoded
from .atomic import new_folder
from .examples import Example, Text
from .families.base import Encoded
from .formats import BadRow, BadRows, FormattingFunc, Markers, TrainOn, formatted, reader
from .formats.documents import BadImages, document_reader, image_references
from .formats.pictures import references
from .images import InMemory, state_of
from .loader import Loaded
from .pretraining import MultimodalPretrain
from .progress import progress
from .sources import Row
from .token_cache import cached_folder, key_of, prune

AT_ONCE = 512  # rows tokenized together
CACHED_ROWS = 1000  # a set of as many is kept on the disk

T = TypeVar("T")


@dataclass
class Account:
    """What became of the rows of a source."""

    name: str  # what errors and notices call the source
    max_seq_length: int
    rows: int = 0  # read
    cut: int = 0  # cut on the right
    longest_cut: int = 0  # tokens
    in_pieces: int = 0  # raw texts that were cut into several rows
    left_out: list[int] = field(default_factory=list)  # rows of which nothing supervised was left
    images_beyond: list[int] = field(default_factory=list)  # rows left out because an image would have been cut
    documents_beyond: list[int] = field(default_factory=list)  # documents with images left out as they are longer
    bad_images: list[int] = field(default_factory=list)  # documents left out because of their images
    bad_images_why: str = ""  # of the first of them
    kept_in_memory: bool = False  # a large set that the cache folder cannot hold

    def by_kind(self) -> dict[str, str]:
        """A sentence about each kind of row that did not fit, under the name of the kind."""
        beyond = f"of {self.rows} rows of {self.name} are longer than {self.max_seq_length} tokens"
        said = {}
        if self.cut:
            said["cut"] = (
                f"{self.cut} {beyond} and were cut on the right, the longest by {self.longest_cut}; their answers do "
                "not end, and the model is not shown how to end them."
            )
        if self.in_pieces:
            said["in pieces"] = f"{self.in_pieces} {beyond} and were trained in pieces; no token of them is lost."
        if self.left_out:
            said["left out"] = (
                f"{len(self.left_out)} of {self.rows} rows of {self.name} were left out, the first row "
                f"{self.left_out[0]}: within {self.max_seq_length} tokens nothing of their answer remains."
            )
        if self.images_beyond:
            said["images beyond"] = (
                f"{len(self.images_beyond)} of {self.rows} rows of {self.name} were left out, the first row "
                f"{self.images_beyond[0]}: their images reach beyond {self.max_seq_length} tokens, and no image is cut."
            )
        if self.documents_beyond:
            said["documents beyond"] = (
                f"{len(self.documents_beyond)} of {self.rows} rows of {self.name} were left out, the first row "
                f"{self.documents_beyond[0]}: with their images written out they are longer than "
                f"{self.max_seq_length} tokens, and no document with images is cut."
            )
        if self.bad_images:
            said["bad images"] = (
                f"{len(self.bad_images)} of {self.rows} rows of {self.name} were left out because of their images, the "
                f"first row {self.bad_images[0]}: {self.bad_images_why}"
            )
        if self.kept_in_memory:
            said["kept in memory"] = (
                f"Images of {self.name} are no files, so its rows are kept in memory and encoded each time; save them "
                "and give their paths."
            )
        return said


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
) -> EncodedSet:
    """Encode every row of `rows`; `format` to `pretrain` are those of `row_reader`.

    A row longer than `max_seq_length` tokens is cut on the right, and left out when its whole answer is, or when an
    image would be; raw text is cut into pieces instead, and a document with images is left out or refused, as
    `pretrain.excess_length_strategy` says. Where `rows` are part of a source, `places` says which: its
    numbers are the ones reported.
    Raises ValueError when no row is left, and for rows `formats.reader` refuses.
    """
    account = Account(name=name, max_seq_length=max_seq_length)

    def encode() -> Iterator[Encoded]:
        read = row_reader(
            rows,
            loaded,
            format=format,
            train_on=train_on,
            response_markers=response_markers,
            formatting_func=formatting_func,
            pretrain=pretrain,
        )
        return _encoded(rows, range(len(rows)) if places is None else places, loaded, read, account, pretrain)

    folder = None
    if len(rows) >= CACHED_ROWS:
        settings = [format, train_on, response_markers, max_seq_length, places and list(places)]
        settings += [pretrain.as_plain] if pretrain else []
        with contextlib.suppress(InMemory):
            folder = cached_folder(key_of(_with_images(rows, formatting_func, loaded, pretrain), loaded, settings))
        account.kept_in_memory = folder is None
    if folder is None:
        result = EncodedSet(list(encode()), account)
    else:
        result = _through_cache(folder, encode, account, pretrain.image_base_dir if pretrain else None)
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
    read = row_reader(head, loaded, pretrain=pretrain, **options)

    def encode(number: int, row: Row) -> list[Encoded]:
        account.rows += 1
        try:
            example = read(row)
        except BadRow as error:
            if _is_left_out(number, error, pretrain, account):
                return []
            raise ValueError(f"Row {number} of {account.name} cannot be trained on: {error}") from error
        (whole,) = loaded.family.encode([example])
        return list(_fitted(replace(whole, number=number), example, pretrain, account))

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
) -> Callable[[Row], Example]:
    """The function that reads one of `rows`: that of `formats.reader`, or of documents where `pretrain` says so.

    With `pretrain` the others must have been left out; `pretraining.check` sees to it.
    """
    if pretrain is not None and loaded.family.placeholder is not None:
        return document_reader(pretrain, loaded.tokenizer, loaded.family.placeholder)
    return reader(
        rows,
        loaded.tokenizer,
        format,
        train_on=train_on,
        response_markers=response_markers,
        formatting_func=formatting_func,
        placeholder=loaded.family.placeholder,
    )


def _with_images(
    rows: Sequence[Row], formatting_func: FormattingFunc | None, loaded: Loaded, pretrain: MultimodalPretrain | None
) -> Iterator[Row | list[str]]:
    """Each row, and behind it the states of its images. Raises InMemory for an image that is no file."""
    folder, remote = (pretrain.image_base_dir, pretrain.allow_remote_images) if pretrain else (None, False)
    for row in rows:
        row = formatted(row, formatting_func)
        yield row
        if loaded.family.placeholder is not None:
            named = references(row) if pretrain is None else image_references(row, pretrain)
            yield [state_of(value, folder=folder, remote=remote) for value in named]


def _through_cache(
    folder: Path, encode: Callable[[], Iterator[Encoded]], account: Account, images: str | Path | None
) -> EncodedSet:
    """What `folder` holds; filled with what `encode` gives, and its account, when it holds nothing whole.

    `images` is the folder that the images of the rows are in.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):  # nothing there, or not what was written
        return _read(folder, account.name, images)
    with new_folder(folder) as partial:
        encoded.write_rows(partial, encode(), lambda: asdict(account))
    prune(folder)
    return _read(folder, account.name, images)


def _read(folder: Path, name: str, images: str | Path | None) -> EncodedSet:
    rows, facts = encoded.read_rows(folder, images=images)
    return EncodedSet(rows, Account(**{**facts, "name": name}))


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
        for number, row in some:
            try:
                examples[number] = read(row)
            except BadRow as error:
                if not _is_left_out(number, error, pretrain, account):
                    bad.add(number, error)
        whole = loaded.family.encode(list(examples.values()))
        for (number, example), row in zip(examples.items(), whole, strict=True):
            yield from _fitted(replace(row, number=number), example, pretrain, account)
    account.rows = len(rows)
    bad.check(len(rows))


def _is_left_out(number: int, error: BadRow, pretrain: MultimodalPretrain | None, account: Account) -> bool:
    """Whether a bad row is to be left out rather than refused; then it is counted."""
    if pretrain is None or not pretrain.skip_bad_images or not isinstance(error, BadImages):
        return False
    account.bad_images.append(number)
    account.bad_images_why = account.bad_images_why or str(error)
    return True


def _fitted(row: Encoded, example: Example, pretrain: MultimodalPretrain | None, account: Account) -> Iterator[Encoded]:
    """`row` within the length, in pieces or cut, or nothing when nothing of it is supervised then."""
    return _fitted_row(row, example, account) if pretrain is None else _fitted_document(row, pretrain, account)


def _fitted_row(row: Encoded, example: Example, account: Account) -> Iterator[Encoded]:
    longest, length = account.max_seq_length, len(row.tokens)
    is_raw = not example.rendered and all(isinstance(part, Text) and part.supervised for part in example.parts)
    if length > longest and is_raw and longest > 1:
        account.in_pieces += 1
        yield from _pieces(row, longest)
        return
    if row.images_end > longest:
        account.images_beyond.append(row.number)
        return
    cut = max(0, length - longest)
    kept = replace(row, tokens=row.tokens[:longest], loss_mask=row.loss_mask[:longest], cut=cut) if cut else row
    if not kept.supervised_tokens:
        account.left_out.append(row.number)
        return
    account.cut += cut > 0
    account.longest_cut = max(account.longest_cut, cut)
    yield kept


def _fitted_document(row: Encoded, pretrain: MultimodalPretrain, account: Account) -> Iterator[Encoded]:
    """`row` as it is where that is within the length; with images it is never cut, and text alone is in pieces."""
    longest, length = account.max_seq_length, len(row.tokens)
    if row.images and length > longest:
        if pretrain.excess_length_strategy == "raise":
            raise ValueError(
                f"Row {row.number} of {account.name} is {length} tokens with its images written out, and "
                f"max_seq_length is {longest}; raise that, or choose excess_length_strategy='drop'."
            )
        account.documents_beyond.append(row.number)
    elif not row.supervised_tokens or (length > longest and longest == 1):
        account.left_out.append(row.number)
    elif length > longest:
        account.in_pieces += 1
        yield from (piece for piece in _pieces(row, longest) if piece.supervised_tokens)
    else:
        yield row


def _pieces(row: Encoded, longest: int) -> Iterator[Encoded]:
    """`row` in pieces of `longest` tokens, at least 2, that predict every token once."""
    for start in range(0, len(row.tokens) - 1, longest - 1):  # the last token of one piece begins the next
        place = slice(start, start + longest)
        yield replace(row, tokens=row.tokens[place], loss_mask=row.loss_mask[place])


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
