"""A source a person gave, opened once: its rows, how they are to be read, and which files they may name.

What is said of reading rows is one record, made where a person says it and carried with the rows to where they are
read; nothing on the way takes it apart.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

from ..config import TrainOn
from .formats import FormattingFunc, Markers, format_of
from .formats.preferences import Comparing, told_kind
from .pretraining import MultimodalPretrain, reach_of_documents
from .reach import Reach
from .sources import Broken, Place, Row, Rows, Source, place_of, reach_of, read_rows, row_number, rows_at


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How rows become examples; with `documents` the others say nothing (`pretraining.check` sees to it)."""

    format: str | None = None  # a key of formats.FORMATS; None: told from the columns of all rows
    train_on: TrainOn = "assistant"
    response_markers: Markers | None = None  # (instruction_part, response_part)
    formatting_func: FormattingFunc | None = None
    thinking: bool | None = None  # the chat template's switch for thoughts; None: as mlx-lm has it
    documents: MultimodalPretrain | None = None  # None: rows of one of formats.FORMATS
    answers: Comparing | None = None  # what an objective compares: rows are preferences then. None: it reads texts
    skip_bad_rows: bool = False  # leave out, count and list rows that cannot be trained on; False: refuse the set

    def __post_init__(self):
        given = {"format": self.format, "response_markers": self.response_markers}
        given["train_on"] = None if self.train_on == "assistant" else self.train_on
        if self.answers is not None and (named := [name for name, value in given.items() if value is not None]):
            raise ValueError(
                f"{' and '.join(named)} is for rows that are trained as they stand. Leave it out: an objective that "
                "compares answers knows its rows by their columns, and an answer is all that follows its prompt."
            )

    @property
    def as_plain(self) -> list[Any]:
        """What decides what a row becomes, once `formatting_func` was called with it, as values for JSON."""
        if self.answers is not None:
            return ["answers", self.answers, self.thinking]
        plain: list[Any] = [self.format, self.train_on, self.response_markers, self.thinking]
        return plain if self.documents is None else [*plain, self.documents.as_plain]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A source that was opened."""

    source: Sequence[Row]  # all of it; numbers of rows count these
    rows: Sequence[Row]  # those to be used
    places: Sequence[int] | None = None  # of `rows` in `source`; None: they are all of it
    options: ReadingOptions = field(default_factory=ReadingOptions)
    reach: Reach  # which files the rows may name as images
    format: Callable[[], str]  # of the whole source, told when it is asked for the first time
    place: Callable[[int], Place] = row_number  # of a row of the source, by its number
    broken: Sequence[Broken] = ()  # lines of the source that are no rows and were left out

    def at(self, places: Sequence[int]) -> "Opened":
        """Those of `rows` at `places`."""
        known = self.places
        of_source = places if known is None else [known[place] for place in places]
        return replace(self, rows=rows_at(self.rows, places), places=of_source)


def open_rows(given: Source | MultimodalPretrain, name: str, options: ReadingOptions) -> Opened:
    """What a person gave, opened. Raises as `sources.read_rows` does, and ValueError where nothing is left of it."""
    if not isinstance(given, MultimodalPretrain):
        return opened(read_rows(given, name, skip_bad_rows=options.skip_bad_rows), options)
    rows = read_rows(given.source, name, skip_bad_rows=options.skip_bad_rows)
    whole = opened(rows, replace(options, documents=given))
    if not given.skip:
        return whole
    if given.skip >= len(whole.rows):
        raise ValueError(f"skip is {given.skip}, and {name} has {len(whole.rows)} rows; nothing is left of it.")
    return whole.at(range(given.skip, len(whole.rows)))


def opened(rows: Sequence[Row], options: ReadingOptions) -> Opened:
    """Rows that are at hand, as a source that was opened: all of them, which may name the files they always may."""
    reach = reach_of(rows)
    if options.documents is not None:
        reach = reach_of_documents(options.documents, reach)
    return Opened(
        source=rows,
        rows=rows,
        options=options,
        reach=reach,
        format=told_format(rows, options),
        place=partial(place_of, rows),
        broken=rows.broken if isinstance(rows, Rows) else (),
    )


def told_format(rows: Sequence[Row], options: ReadingOptions) -> Callable[[], str]:
    """The function that tells the format of `rows`, which takes a pass over them, once."""
    if options.answers is not None:
        return cache(partial(told_kind, rows, options.answers, options.formatting_func))
    if options.format is not None:
        return partial(str, options.format)
    return cache(partial(format_of, rows, options.formatting_func))


def named_source(rows: Sequence[Row], name: str) -> str:
    """What a message calls the rows of an argument: with the file, where there is one."""
    origin = os.path.basename(rows.origin) if isinstance(rows, Rows) else name
    return name if origin in (name, "") else f"{name} ({origin})"
