"""`{"prompt": ..., "completion": ..., "label": ...}`: one answer, and whether it is a good one."""

from typing import Any

from ...sources import Row
from ..columns import BadRow, listed, shown
from ..mends import Mend
from .other_columns import truth_of
from .sides import Compared, check_answer, check_prompt, sides_of

ANSWERS = ("completion",)


def read_labelled(row: Row, *, images: bool) -> Compared:
    """One row, with parts for `images` or without. Raises BadRow for what cannot be a judged answer."""
    label = _label(listed(row.get("label")))
    sides = sides_of(row, ("prompt", *ANSWERS), ANSWERS, images=images)
    check_prompt(sides["prompt"], {"completion": sides["completion"]})
    check_answer("completion", sides["completion"], "what comes before the last question belongs into 'prompt'")
    return Compared(sides["prompt"], {"completion": sides["completion"]}, label)


def _label(value: Any) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    if value is None or value != value:  # NaN, which pandas has for nothing
        raise BadRow("it has no 'label' beside 'completion'; say True or False, or drop the row.")
    article = "an" if isinstance(value, int) else "a"
    kind = f"{shown(value)}, {article} {type(value).__name__}" if isinstance(value, str | int | float) else shown(value)
    truth, mend = truth_of(value), None
    if truth is not None:
        mend = Mend("row.get('label') not in (True, False)", f"{{**row, 'label': {truth}}}")
    elif isinstance(value, int | float):
        truth = "row['label'] > 0.5" if 0 <= value <= 1 else "row['label'] > 3"
    move = f", as {truth} is" if truth is not None else "; write which values are good ones, or drop the row"
    raise BadRow(f"its column 'label' is {kind}; it must be True or False{move}.", mend)
