"""A source a person gave, opened once: its rows, those of them to be used, and which files they may name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .pretraining import MultimodalPretrain, reach_of_documents
from .reach import Reach
from .sources import Row, Source, reach_of, read_rows, rows_at


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A source that was opened."""

    source: Sequence[Row]  # all of it; numbers of rows count these
    rows: Sequence[Row]  # those to be used
    places: Sequence[int] | None  # of `rows` in `source`; None: they are all of it
    documents: MultimodalPretrain | None  # None: rows of one of `formats.FORMATS`
    reach: Reach  # which files the rows may name as images

    def at(self, places: Sequence[int]) -> "Opened":
        """Those of `rows` at `places`."""
        known = self.places
        of_source = places if known is None else [known[place] for place in places]
        return replace(self, rows=rows_at(self.rows, places), places=of_source)


def open_rows(given: Source | MultimodalPretrain, name: str) -> Opened:
    """What a person gave, opened. Raises as `sources.read_rows` does, and ValueError where nothing is left of it."""
    if not isinstance(given, MultimodalPretrain):
        rows = read_rows(given, name)
        return Opened(source=rows, rows=rows, places=None, documents=None, reach=reach_of(rows))
    source = read_rows(given.source, name)
    reach = reach_of_documents(given, reach_of(source))
    if not given.skip:
        return Opened(source=source, rows=source, places=None, documents=given, reach=reach)
    if given.skip >= len(source):
        raise ValueError(f"skip is {given.skip}, and {name} has {len(source)} rows; nothing is left of it.")
    places = range(given.skip, len(source))
    return Opened(source=source, rows=rows_at(source, places), places=places, documents=given, reach=reach)
