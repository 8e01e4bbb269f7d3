"""Rows that cannot be trained on, of whole sources: refused together, or left out and listed where a person said so.

They are looked for before anything is split off, so that every count is of the whole source.
"""

from collections.abc import Mapping

from ..data.formats import RefusedRows
from ..data.opened import Opened, named_source
from ..data.sources import by_reason, told
from ..models.loaded import Loaded
from .encoding import find_bad


def without_bad_rows(
    sets: Mapping[str, Opened], loaded: Loaded, *, max_seq_length: int
) -> tuple[dict[str, Opened], list[str]]:
    """(each source without the rows `encode` refuses, sentences on those); the keys are the names of arguments.

    Raises RefusedRows, about all sources at once, where `skip_bad_rows` was not said, and where no row would be left.
    """
    kept, notices, refused = dict(sets), [], []
    for name, opened in sets.items():
        bad = find_bad(opened, loaded, max_seq_length=max_seq_length, name=name)
        numbers, total, source = bad.numbers, len(opened.rows), named_source(opened.source, name)
        if not numbers:
            continue
        if not opened.options.skip_bad_rows or len(numbers) == total:
            try:
                bad.check(total, name=source, place=opened.place, can_skip=True)
            except RefusedRows as error:
                refused.append(str(error))
            continue
        of_source = range(total) if opened.places is None else opened.places
        kept[name] = opened.at([place for place, number in enumerate(of_source) if number not in numbers])
        listed = " ".join(bad.told(opened.place))
        are = "is" if len(numbers) == 1 else "are"
        notices.append(f"skip_bad_rows: {len(numbers)} of {total} rows of {source} {are} left out; {listed}")
    if refused:
        raise RefusedRows("\n".join(refused))
    return kept, notices


def broken_notices(sets: Mapping[str, Opened]) -> list[str]:
    """A sentence on the lines or items that were left out of each source because they are no rows."""
    said = []
    for name, opened in sets.items():
        if opened.broken:
            count, what = len(opened.broken), "line" if opened.broken[0].place.word == "line" else "item"
            told_of = f"1 {what}" if count == 1 else f"{count} {what}s"
            verdict = "is no row and is left out" if count == 1 else "are no rows and are left out"
            source, reasons = named_source(opened.source, name), "; ".join(told(by_reason(opened.broken)))
            said.append(f"skip_bad_rows: {told_of} of {source} {verdict}; {reasons}.")
    return said
