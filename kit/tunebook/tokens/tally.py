"""What became of the rows of a source on their way to training: how many were cut, in pieces or left out, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..data.sources import Place, row_number

MOST_NAMED = 12  # things that are not read
BARE = "are read as plain text, as in TRL, while generate and Chat ask this model by its chat template."
BARE_MENDED = "Make the prompt and each answer a list of messages, [{'role': 'user', 'content': ...}]."

MARKUP = "hold turns that a chat template wrote before, and are put through it once more."
MARKUP_MENDED = "Pass the turns as people wrote them, or the finished text alone, as {'text': ...}."


@dataclass
class Account:
    """What became of the rows of a source."""

    name: str  # what errors and notices call the source
    max_seq_length: int
    rows: int = 0  # read
    cut: int = 0  # cut on the right
    longest_cut: int = 0  # tokens
    cut_alike: list[int] = field(default_factory=list)  # pairs that were cut before their answers part
    in_pieces: int = 0  # raw texts that were cut into several rows
    left_out: list[int] = field(default_factory=list)  # rows with nothing supervised within the length
    longest_left_out: int = 0  # tokens of those of them whose answer begins beyond it
    never_supervised: list[int] = field(default_factory=list)  # those of them that had nothing beyond it either
    never_supervised_why: str = ""  # of the first of them
    images_beyond: list[int] = field(default_factory=list)  # rows left out because an image would have been cut
    documents_beyond: list[int] = field(default_factory=list)  # documents with images left out as they are longer
    bad_images: list[int] = field(default_factory=list)  # documents left out because of their images
    bad_images_why: str = ""  # of the first of them
    bad: dict[str, list[int]] = field(default_factory=dict)  # why rows were left out: [how many, the first]
    unread: dict[str, list[int]] = field(default_factory=dict)  # what rows say and nobody reads: [how many, the first]
    bare: list[int] = field(default_factory=list)  # answers without the chat template, where the model has one
    markup: list[int] = field(default_factory=list)  # chats whose turns a template wrote before
    chats: int = 0  # rows that a chat template wrote
    with_thoughts: int = 0  # those of them with thoughts that are trained
    kept_in_memory: bool = False  # a large set that the cache folder cannot hold
    not_cached: str = ""  # why a large set could not be written to the cache folder
    place: Callable[[int], Place] = field(default=row_number, repr=False, compare=False)  # of a row, by its number

    @property
    def as_plain(self) -> dict[str, Any]:
        """All but `place`, by name, as values that JSON gives back unchanged."""
        return {one.name: vars(self)[one.name] for one in fields(self) if one.name != "place"}

    def placed(self, number: int) -> str:
        """'Row 3' or 'Line 4', to begin a sentence with."""
        return self.place(number).title

    def note_bad(self, number: int, why: str) -> None:
        """Count row `number`, which cannot be trained on and is left out."""
        count, first = self.bad.get(why, [0, number])
        self.bad[why] = [count + 1, first]

    def note_unread(self, number: int, names: tuple[str, ...]) -> None:
        """Count what row `number` says and nobody reads."""
        for name in names:
            count, first = self.unread.get(name, [0, number])
            self.unread[name] = [count + 1, first]

    def note_form(self, number: int, *, bare: bool, markup: bool) -> None:
        """Count row `number` where its chat template is missing, or was put to it already."""
        self.bare += [number] * bare
        self.markup += [number] * markup

    def note_thoughts(self, found: bool | None) -> None:
        """Count a row with thoughts before an answer, or without; None is no chat."""
        self.chats += found is not None
        self.with_thoughts += found is True

    @property
    def answer_beyond(self) -> list[int]:
        """Rows that were left out because their answer begins beyond the length."""
        never = set(self.never_supervised)
        return [number for number in self.left_out if number not in never]

    def by_kind(self) -> dict[str, str]:
        """A sentence about each kind of row that did not fit, under the name of the kind."""
        beyond = f"of {self.rows} rows of {self.name} are longer than {self.max_seq_length} tokens"
        said = {}
        if self.cut:
            said["cut"] = (
                f"{self.cut} {beyond} and were cut on the right, the longest by {self.longest_cut}; their answers do "
                "not end, and the model is not shown how to end them."
            )
        if self.cut_alike:
            said["cut alike"] = (
                f"Within {self.max_seq_length} tokens both answers of {len(self.cut_alike)} of {self.rows} rows of "
                f"{self.name} are the same, the first {self.place(self.cut_alike[0])}: which is better cannot be "
                "learnt of them. Raise max_seq_length, or drop them."
            )
        if self.in_pieces:
            said["in pieces"] = f"{self.in_pieces} {beyond} and were trained in pieces; no token of them is lost."
        if beyond_length := self.answer_beyond:
            why = f"within {self.max_seq_length} tokens nothing of their answer remains."
            said["left out"] = self._left_out(beyond_length, why)
        if self.never_supervised:
            said["never supervised"] = self._left_out(self.never_supervised, f"{self.never_supervised_why}.")
        if self.images_beyond:
            why = f"their images reach beyond {self.max_seq_length} tokens, and no image is cut."
            said["images beyond"] = self._left_out(self.images_beyond, why)
        if self.documents_beyond:
            why = f"with their images written out they are longer than {self.max_seq_length} tokens, and no document "
            said["documents beyond"] = self._left_out(self.documents_beyond, f"{why}with images is cut.")
        if self.bad_images:
            said["bad images"] = self._left_out(self.bad_images, self.bad_images_why, " because of their images")
        if self.bad:
            told = [f"{why} ({count}, first {self.place(first)})" for why, (count, first) in self.bad.items()]
            more = f" and for {len(told) - MOST_NAMED} more reasons" if len(told) > MOST_NAMED else ""
            said["bad rows"] = (
                f"skip_bad_rows: {sum(count for count, _ in self.bad.values())} of {self.rows} rows of {self.name} "
                f"were left out: {'; '.join(told[:MOST_NAMED])}{more}"
            )
        return said | self._as_read()

    def _as_read(self) -> dict[str, str]:
        """The same of how rows were read, and where they are."""
        said = {}
        if self.unread:
            told = [f"{name} ({count}, first {self.place(first)})" for name, (count, first) in self.unread.items()]
            more = f" and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
            said["not read"] = (
                f"Of the {self.rows} rows of {self.name} this is not read, and changes nothing: "
                f"{', '.join(told[:MOST_NAMED])}{more}."
            )
        if self.bare:
            first = self.place(self.bare[0])
            said["bare"] = (
                f"{len(self.bare)} of {self.rows} rows of {self.name}, the first {first}, {BARE} {BARE_MENDED}"
            )
        if self.markup:
            first = self.place(self.markup[0])
            said["markup"] = (
                f"{len(self.markup)} of {self.rows} rows of {self.name}, the first {first}, {MARKUP} {MARKUP_MENDED}"
            )
        if 0 < self.with_thoughts < self.chats:
            said["thoughts"] = (
                f"{self.with_thoughts} of {self.chats} chats of {self.name} have thoughts before an answer and others "
                "have none, so whether the tuned model thinks is left to chance; train on rows of one kind."
            )
        if self.kept_in_memory:
            said["kept in memory"] = (
                f"Images of {self.name} are no files, so its rows are kept in memory and encoded each time; save them "
                "and give their paths."
            )
        if self.not_cached:
            said["not cached"] = (
                f"The rows of {self.name} could not be kept in the cache folder ({self.not_cached}), so they are in "
                "memory and are encoded each time; TUNEBOOK_CACHE names another folder."
            )
        return said

    def _left_out(self, numbers: list[int], why: str, because: str = "") -> str:
        first = self.place(numbers[0])
        return f"{len(numbers)} of {self.rows} rows of {self.name} were left out{because}, the first {first}: {why}"


def together(one: Account, other: Account) -> Account:
    """The account of a source of which `one` and `other` are two parts."""
    return replace(
        one,
        rows=one.rows + other.rows,
        cut=one.cut + other.cut,
        longest_cut=max(one.longest_cut, other.longest_cut),
        cut_alike=sorted(one.cut_alike + other.cut_alike),
        in_pieces=one.in_pieces + other.in_pieces,
        left_out=sorted(one.left_out + other.left_out),
        never_supervised=sorted(one.never_supervised + other.never_supervised),
        never_supervised_why=_first_why(
            {tuple(part.never_supervised): part.never_supervised_why for part in (one, other)}
        ),
        images_beyond=sorted(one.images_beyond + other.images_beyond),
        documents_beyond=sorted(one.documents_beyond + other.documents_beyond),
        bad_images=sorted(one.bad_images + other.bad_images),
        bad_images_why=_first_why({tuple(part.bad_images): part.bad_images_why for part in (one, other)}),
        bad=_counted(one.bad, other.bad),
        unread=_counted(one.unread, other.unread),
        bare=sorted(one.bare + other.bare),
        chats=one.chats + other.chats,
        with_thoughts=one.with_thoughts + other.with_thoughts,
        kept_in_memory=one.kept_in_memory or other.kept_in_memory,
        not_cached=one.not_cached or other.not_cached,
    )


def _first_why(whys: Mapping[tuple[int, ...], str]) -> str:
    """The reason of the first row, of numbers and the reason of their first."""
    return min(((numbers, why) for numbers, why in whys.items() if numbers), default=((), ""))[1]


def _counted(one: Mapping[str, list[int]], other: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """[how many, the first] of both."""
    both = dict(one)
    for name, (count, first) in other.items():
        before, earlier = both.get(name, [0, first])
        both[name] = [before + count, min(earlier, first)]
    return both
