"""The rows an export is compared with the live model on: rows as they were given in, rows with one answer each out."""

from collections.abc import Sequence

from ...data.formats import PAIR, NoFormat, format_of
from ...data.sources import Row


def comparable(rows: Sequence[Row]) -> Sequence[Row]:
    """`rows`, of pairs the chosen answers. Raises NoFormat, with rows to pass in their place, for those of no format.

    That is known without the model, so it is said before an export is written.
    """
    if not len(rows):
        return rows
    if set(rows[0]) >= PAIR:
        rows = [_with_its_answer(row) for row in rows]
    try:
        format_of(rows)
    except NoFormat as error:
        makes = error.mending[-1].partition("formatting_func=lambda row: ")[2] if error.mending else ""
        start = str(error).partition(". If ")[0] if makes else str(error)
        move = f" Pass what a formatting_func would make of them: [{makes or '...'} for row in rows]."
        raise NoFormat(f"{start.rstrip('.')}.{move}") from error
    return rows


def _with_its_answer(row: Row) -> Row:
    """A pair as a row with one answer, the chosen one."""
    prompt, chosen = row.get("prompt"), row["chosen"]
    if prompt is None:
        return {"text" if isinstance(chosen, str) else "messages": chosen}
    return {"prompt": prompt, "completion": chosen}
