"""`{"prompt": ..., "completion": ..., "label": ...}`: one answer, and whether it is a good one."""

from typing import Any

from ...sources import Row
from ..columns import BadRow, listed, shown
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
    kind = f"{shown(value)}, a {type(value).__name__}" if isinstance(value, str | int | float) else shown(value)
    raise BadRow(f"its column 'label' is {kind}; it must be True or False.")
