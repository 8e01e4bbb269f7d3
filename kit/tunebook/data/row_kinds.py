"""The kinds of rows, examples to learn from, documents with images and answers to compare: which a set has.

An opened set and what the model reads with go in; out comes all that is done otherwise with rows of its kind.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from mlx_lm.tokenizer_utils import TokenizerWrapper

from .answers import Answers
from .examples import Example
from .formats import reader
from .formats.documents import document_reader
from .formats.documents import image_references as references_of_document
from .formats.preferences import Comparing, preference_reader
from .formats.preferences import image_references as references_of_answers
from .formats.row_images import references
from .opened import Opened
from .sources import Row

TooLong = Literal["cut", "drop", "raise"]


@dataclass(frozen=True, kw_only=True)
class RowKind:
    """What is done with the rows of one set."""

    # Gives the function that reads one row and raises BadRow; to recognise the format takes a pass over the rows.
    reader: Callable[[], Callable[[Row], Example | Answers]]
    image_references: Callable[[Row], Iterable[Any]]  # all that a row names as an image, whatever that is
    too_long: TooLong  # what becomes of a row beyond the length; raw text is in pieces, whichever it is
    skips_bad_images: bool  # leave out, and count, a row whose images cannot be had; else it is refused
    skips_bad_rows: bool  # and so any row that cannot be trained on


def row_kind(
    opened: Opened, tokenizer: TokenizerWrapper, placeholder: str | None, *, looks_at_images: bool = True
) -> RowKind:
    """The kind of an opened set. `placeholder` is the token of an image, None for a model that reads text alone.

    Without `looks_at_images` the images of documents are not opened, for rows that were read before.
    """
    options = opened.options
    if options.documents is not None and placeholder is not None:
        return RowKind(
            reader=partial(
                document_reader,
                options.documents,
                tokenizer,
                placeholder,
                reach=opened.reach,
                looks_at_images=looks_at_images,
            ),
            image_references=partial(references_of_document, entry=options.documents),
            too_long=options.documents.excess_length_strategy,
            skips_bad_images=options.documents.skip_bad_images,
            skips_bad_rows=options.skip_bad_rows,
        )
    if options.answers is not None:
        return RowKind(
            reader=partial(_answers_reader, opened, options.answers, tokenizer, placeholder),
            image_references=references_of_answers if placeholder is not None else _no_references,
            too_long="cut",
            skips_bad_images=False,
            skips_bad_rows=options.skip_bad_rows,
        )
    return RowKind(
        reader=lambda: reader(
            opened.rows,
            tokenizer,
            opened.format(),
            train_on=options.train_on,
            response_markers=options.response_markers,
            formatting_func=options.formatting_func,
            placeholder=placeholder,
            reach=opened.reach,
            thinking=options.thinking,
        ),
        image_references=references if placeholder is not None else _no_references,
        too_long="cut",
        skips_bad_images=False,
        skips_bad_rows=options.skip_bad_rows,
    )


def _answers_reader(
    opened: Opened, kind: Comparing, tokenizer: TokenizerWrapper, placeholder: str | None
) -> Callable[[Row], Answers]:
    opened.format()  # raises where the whole source is no such set
    options = opened.options
    return preference_reader(
        tokenizer,
        kind,
        formatting_func=options.formatting_func,
        placeholder=placeholder,
        reach=opened.reach,
        thinking=options.thinking,
    )


def _no_references(row: Row) -> tuple[Any, ...]:  # noqa: ARG001 - a model that reads text alone opens none
    return ()
