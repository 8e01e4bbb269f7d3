"""Rows -> answers: whether a set is one of preferences, and the function that reads one of its rows."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ...answers import Answers
from ...reach import ANYWHERE, Reach
from ...sources import Row
from ..columns import BadRow
from ..mends import Mend, formatting_all, passed
from ..read import FormattingFunc, formatted
from ..reading import Reading
from ..recognition import OF_A_CHAT
from ..row_images import Placing
from ..templates import printable, template_of
from ..unread import IMAGES, rendered_before, unread_frames
from .labelled import ANSWERS as JUDGED
from .labelled import read_labelled
from .other_columns import ours_of
from .pairs import ANSWERS as PAIRED
from .pairs import SCORES, read_pair
from .prompt_images import check_no_images, put_back, taken_out, with_references
from .sides import Compared, written

Comparing = Literal["pairs", "labelled"]
MOST_NAMED = 20  # columns in a message
LOOKED_AT = 20  # rows, for what columns of other names mean


@dataclass(frozen=True)
class Preferences:
    """A kind of rows: its columns, and how one is read."""

    columns: tuple[str, ...]  # most rows have them
    answers: tuple[str, ...]  # which of them hold what is answered
    read: Callable[..., Compared]  # (row, images=whether the model reads them)
    optional: tuple[str, ...]  # read where a row has them
    also: str  # what such rows are, for a sentence


PREFERENCES: dict[Comparing, Preferences] = {
    "pairs": Preferences(
        ("chosen", "rejected"),
        PAIRED,
        read_pair,
        optional=("prompt", *OF_A_CHAT, *(name for names in SCORES for name in names)),
        also="with 'prompt' where both do not begin with it",
    ),
    "labelled": Preferences(
        ("prompt", "completion", "label"),
        JUDGED,
        read_labelled,
        optional=OF_A_CHAT,
        also="a label True or False",
    ),
}


def preference_reader(
    tokenizer: TokenizerWrapper,
    kind: Comparing,
    *,
    formatting_func: FormattingFunc | None = None,
    placeholder: str | None = None,
    reach: Reach = ANYWHERE,
    thinking: bool | None = None,
) -> Callable[[Row], Answers]:
    """The function that reads one row, each by itself and in any order; it raises BadRow for one it cannot use.

    That most of a set are of this `kind` is for `told_kind` to say. `placeholder` is the token that stands for an
    image, with None the model reads text alone; `reach` says which files it may open.
    """
    form = PREFERENCES[kind]
    template = template_of(tokenizer, thinking)
    reading = Reading(tokenizer=tokenizer, template=template, reads_images=placeholder is not None)
    placing = None if placeholder is None else Placing(tokenizer, placeholder, template, reach)
    columns = {*form.columns, *form.optional} | (set() if placing is None else IMAGES)

    def read_row(row: Row) -> Answers:
        row = formatted(row, formatting_func)
        if placing is None:
            check_no_images(row)
            compared = form.read(row, images=False)
            answers = written(row, compared, reading)
        else:
            compared = form.read(with_references(row, form.answers, placing), images=True)
            prompt, images = taken_out(row, compared, placing)
            answers = put_back(written(row, replace(compared, prompt=prompt), reading), images, placing)
        known = columns - {*OF_A_CHAT} if isinstance(compared.prompt, str) else columns
        names = tuple(f"column {name!r:.60}" for name, value in row.items() if name not in known and _says(value))
        markup = rendered_before(row, ("prompt", *form.answers), template)
        return replace(answers, unread=names + unread_frames(answers.prompt), markup=markup)

    return read_row


def told_kind(rows: Iterable[Row], kind: Comparing, formatting_func: FormattingFunc | None = None) -> Comparing:
    """`kind`, where most of `rows`, a whole source, are of it; single rows are for their reader to refuse.

    Raises ValueError where half of them have not its columns, saying what they look like.
    """
    counts: Counter[str] = Counter()
    columns: set[str] = set()
    few: list[Row] = []
    total = 0
    for given in rows:
        try:
            row = formatted(given, formatting_func)
        except BadRow:
            continue  # it says nothing; it is met again, and counted, when it is read
        total += 1
        if len(few) < LOOKED_AT:
            few.append(row)
        columns.update(name for name, value in row.items() if value is not None)
        counts.update(name for name, form in PREFERENCES.items() if all(row.get(it) is not None for it in form.columns))
    if not total or 2 * counts[kind] > total:
        return kind
    form = PREFERENCES[kind]
    wanted = " and ".join(map(repr, form.columns))
    raise ValueError(
        f"This objective reads rows with the columns {wanted}, {form.also}; {counts[kind]} of {total} have them. The "
        f"columns are {_named(columns)}.{_instead(kind, counts, columns, few)}"
    )


def _instead(kind: Comparing, counts: Mapping[str, int], columns: set[str], few: Sequence[Row]) -> str:
    if kind == "pairs" and counts["labelled"]:
        return " They are judged answers, which objectives.KTO reads."
    if kind == "labelled" and counts["pairs"]:
        return (
            " They are pairs, which objectives.DPO reads; for KTO make two rows of each, [{'prompt': row['prompt'], "
            "'completion': row[side], 'label': side == 'chosen'} for row in rows for side in ('chosen', 'rejected')]."
        )
    made = ours_of(few, kind)
    if made is not None:
        return f" If that is what they mean, {passed(formatting_all(Mend('True', made)))}."
    if columns & {"messages", "conversations", "text"}:
        return " They are texts to learn from, which is done without an objective; leave it out."
    missing = [name for name in PREFERENCES[kind].columns if name not in columns]
    if missing and len(missing) < len(PREFERENCES[kind].columns):
        return f" No row has {' or '.join(map(repr, missing))}."
    return " Write formatting_func=lambda row: ... that makes a row one of these."


def _named(columns: set[str]) -> str:
    more = f" and {len(columns) - MOST_NAMED} more" if len(columns) > MOST_NAMED else ""
    named: Sequence[str] = [printable(str(name), 40) for name in sorted(columns, key=str)[:MOST_NAMED]]
    return ", ".join(named) + more or "none"


def _says(value: object) -> bool:
    return value is not None and not (isinstance(value, str | list | tuple | dict) and not value)
