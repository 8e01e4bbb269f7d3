"""What is wrong with a set of rows: the findings, the rows as they came, and the call that mends them.

It says what the Trainer would refuse the rows with, and raises nothing for it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..data.formats import NoFormat, called
from ..data.opened import Opened, ReadingOptions, named_source
from ..data.sources import Row, by_reason, named
from ..models.loaded import Loaded
from .encoding import find_bad

SHOWN_ROWS = 3  # of one finding
MOST_SHOWN = 1500  # characters of a row


@dataclass(frozen=True)
class Ailment:
    """One thing that is wrong."""

    text: str  # "Lines 4 and 9: ..."
    rows: tuple[tuple[str, str], ...]  # (place, as it came) of the first few it is about


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a set."""

    heading: str
    ailments: tuple[Ailment, ...]
    mends: tuple[str, ...]  # what can be written, Python each

    def __str__(self):
        shown = [f"- {one.text}\n{_indented(one.rows)}" for one in self.ailments]
        mends = ["What mends them, or does without them:"] if self.mends else []
        return "\n".join([self.heading, *shown, *mends, *self.mends])


def diagnose(
    opened: Opened, loaded: Loaded, *, max_seq_length: int, name: str, beside: Sequence[str] = ()
) -> tuple[Diagnosis | None, Opened | None]:
    """(what is wrong with the rows, the rows without those); None where nothing is wrong, and where none is left.

    A call that mends them has the arguments `beside` too, such as the objective that reads them.
    """
    source, total = named_source(opened.source, name), len(opened.rows) + len(opened.broken)
    try:
        bad = find_bad(opened, loaded, max_seq_length=max_seq_length, name=name)
    except ValueError as error:  # about all rows: no format is theirs, or the model cannot read any
        first = tuple((opened.place(number).title, _as_it_came(opened.source[number])) for number in _first(opened))
        mends = tuple(called(each, *beside) for each in error.mending) if isinstance(error, NoFormat) else ()
        heading = f"None of the {total} rows of {source} can be read."
        return Diagnosis(heading, (Ailment(str(error), first), *_ailments({}, opened)), mends), None
    numbers = bad.numbers
    if not numbers and not opened.broken:
        return None, opened
    of_source = range(len(opened.rows)) if opened.places is None else opened.places
    good = [place for place, number in enumerate(of_source) if number not in numbers]
    heading = f"{total - len(good)} of {total} rows of {source} cannot be trained on."
    # What mends rows that a function has made is to be written into that function.
    mends = [called(bad.mending, *beside)] if bad.mends and opened.options.formatting_func is None else []
    if good:
        mends.append(f"{called('skip_bad_rows=True', *_said(opened.options), *beside)}  # the other {len(good)}")
    return Diagnosis(heading, tuple(_ailments(bad.reasons, opened)), tuple(mends)), opened.at(good) if good else None


def _said(options: ReadingOptions) -> list[str]:
    """What the rows are read with, as arguments; what no text can say is called by the argument's own name."""
    named = [name for name in ("formatting_func", "response_markers") if getattr(options, name) is not None]
    return [*([] if options.format is None else [f"format={options.format!r}"]), *(f"{one}={one}" for one in named)]


def _ailments(reasons: Mapping[str, Sequence[int]], opened: Opened) -> Iterator[Ailment]:
    """What is wrong with rows, for some `reasons`, and with lines that are none, in the order of the source."""
    found = by_reason(opened.broken) | {reason: list(map(opened.place, some)) for reason, some in reasons.items()}
    came = {one.place: one.text for one in opened.broken}
    for some in reasons.values():
        came |= {opened.place(number): _as_it_came(opened.source[number]) for number in some[:SHOWN_ROWS]}
    for reason, places in sorted(found.items(), key=lambda item: (item[1][0].file, item[1][0].number)):
        text = f"{named(places)}: {reason.rstrip('.')}."
        yield Ailment(text[0].upper() + text[1:], tuple((place.title, came[place]) for place in places[:SHOWN_ROWS]))


def _first(opened: Opened) -> Sequence[int]:
    places = range(len(opened.rows)) if opened.places is None else opened.places
    return places[:SHOWN_ROWS]


def _as_it_came(row: Row) -> str:
    """A row as JSON, at a length to look at; what JSON does not know by its `repr`."""
    plain = dict(row) if isinstance(row, Mapping) else row
    try:
        text = json.dumps(plain, ensure_ascii=False, default=lambda value: f"{value!r:.80}")
    except (TypeError, ValueError, RecursionError):  # keys of several kinds, numbers of too many digits
        text = f"{plain!r:.{MOST_SHOWN}}"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} …"


def _indented(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"    {place}, as it came: {text}" for place, text in rows)
