"""Where a row stands, in the words of the tool its owner sees it in: a line of a text file, a row of all else.

Lines count from 1, as editors have them; rows count from 0, as Python, pandas and `datasets` have them. What is wrong
with several rows is told here, each reason once with the places it is about.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

MOST_PLACES = 12  # of one reason in a message
MOST_REASONS = 10  # in a message


class Place(NamedTuple):
    """The place of one row."""

    word: Literal["row", "line"]
    number: int
    file: str = ""  # its name, where rows come from several

    def __str__(self):
        return f"{self.word} {self.number}{f' of {self.file}' if self.file else ''}"

    @property
    def title(self) -> str:
        """'Line 1,234 of a.jsonl', to begin with."""
        return f"{self.word.capitalize()} {self.number:,}{f' of {self.file}' if self.file else ''}"


class Broken(NamedTuple):
    """A line of a file, or an item of a list, that is no row."""

    place: Place
    reason: str  # a sentence that begins small: "not JSON at column 9: ..."
    text: str  # the line as it came


def row_number(number: int) -> Place:
    """The place of a row that is in nobody's file."""
    return Place("row", number)


def named(places: Sequence[Place]) -> str:
    """'lines 3, 9 and 12 to 20', or 'line 4 of a.jsonl, rows 3 and 7 of b.parquet', at a length to read."""
    groups, shown, left_out = [], 0, 0
    for (word, file), some in groupby(places, key=lambda place: (place.word, place.file)):
        numbers = [place.number for place in some]
        runs = _runs(numbers)[: MOST_PLACES - shown]
        shown += len(runs)
        left_out += len(numbers) - sum(last - first + 1 for first, last in runs)
        if runs:
            *first, last = [str(low) if low == high else f"{low} to {high}" for low, high in runs]
            joined = f"{', '.join(first)} and {last}" if first else last
            groups.append(f"{word}{'s' if len(numbers) > 1 else ''} {joined}{f' of {file}' if file else ''}")
    return ", ".join(groups) + (f" and {left_out} more" if left_out else "")


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of each run of three or more that follow one another, and of every other number."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return [one for low, high in runs for one in ([(low, low), (high, high)] if high == low + 1 else [(low, high)])]


def told(reasons: Mapping[str, Sequence[Place]]) -> list[str]:
    """'lines 3 and 9: its text is empty', one for each reason, the commonest first, at a length to read."""
    common = sorted(reasons.items(), key=lambda item: -len(item[1]))
    lines = [f"{named(places)}: {reason}" for reason, places in common[:MOST_REASONS]]
    if rest := common[MOST_REASONS:]:
        others = sum(len(places) for _, places in rest)
        lines.append(f"{others} more {'is' if others == 1 else 'are'} bad for {len(rest)} other reasons.")
    return lines


def broken_lines(origin: str, broken: Sequence[Broken], others: int) -> ValueError:
    """The error for lines or items that are no rows, of a source in which `others` are."""
    move = (
        f", or pass skip_bad_rows=True, which reads the other{f' {others}' if others > 1 else ' one'}" if others else ""
    )
    first, what = broken[0], "line" if broken[0].place.word == "line" else "item"
    if len(broken) == 1:
        return ValueError(f"{origin}, {first.place}: {first.reason}. Correct that {what}, or delete it{move}.")
    listed = [f"- {line}." for line in told(by_reason(broken))]
    heading = f"{origin}: {len(broken)} of {len(broken) + others} {what}s are no rows."
    return ValueError("\n".join([heading, *listed, f"Correct those {what}s, or delete them{move}."]))


def by_reason(broken: Iterable[Broken]) -> dict[str, list[Place]]:
    """The places of broken lines under their reasons."""
    found: dict[str, list[Place]] = {}
    for one in broken:
        found.setdefault(one.reason, []).append(one.place)
    return found
