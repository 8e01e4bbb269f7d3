"""Texts of rows and models as they are shown: harmless, no longer than can be read, thoughts apart from the answer."""

from dataclasses import dataclass

from tunebook.machine.inert import visible

LONGEST, END = 6000, 1500  # characters of a text that are shown, and how many of them are its last
LINE = 110  # of a row in a list
REASON = 400


@dataclass(frozen=True)
class Parted:
    """An answer in its two parts."""

    thoughts: str  # "": there are none
    answer: str
    open: bool = False  # the thoughts have no end, and so there is no answer


def parted(text: str, marks: tuple[str, str]) -> Parted:
    """`text` as its thoughts and the answer behind them, by what stands before and behind thoughts."""
    start, end = marks
    if end in text:
        thoughts, _, answer = text.rpartition(end)
        return Parted(thoughts.strip().removeprefix(start).strip(), answer.lstrip())
    if text.lstrip().startswith(start):
        return Parted(text.strip().removeprefix(start).strip(), "", open=True)
    return Parted("", text)


def shown(text: str) -> str:
    """A text as it is shown; of one that is too long the beginning and the end."""
    seen = visible(text[:LONGEST])
    if len(text) <= LONGEST and len(seen) <= LONGEST:
        return seen
    end = visible(text[-END:])
    gap = f"\n… of these {len(text):,} characters the middle is not shown …\n"
    return f"{seen[: LONGEST - END]}{gap}{end[-END:]}"


def first_line(text: str) -> str:
    """The beginning of a text on one line of a list."""
    words = " ".join(visible(text[: 4 * LINE]).split())
    return words if len(words) <= LINE else f"{words[:LINE]}…"


def reason(text: str) -> str:
    """Why something is not there, on one line."""
    words = " ".join(visible(text[:REASON]).split())
    return words if len(text) <= REASON else f"{words}…"
