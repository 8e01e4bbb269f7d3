"""`{"prompt": ..., "chosen": ..., "rejected": ...}`, with or without the prompt: two answers, one of them preferred.

Where the prompt is implied it is what both sides begin with, as `extract_prompt` of trl/data_utils.py (1.16) has it.
"""

from ...sources import Row
from ..columns import BadRow, listed
from .sides import Compared, Side, check_answer, check_prompt, sides_of

ANSWERS = ("chosen", "rejected")
# What sets call the scores their pairs were made by: of the chosen answer, of the rejected one.
SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
)


def read_pair(row: Row, *, images: bool) -> Compared:
    """One row, with parts for `images` or without. Raises BadRow for what cannot be a preference."""
    _check_scores(row)
    implied = row.get("prompt") is None
    sides = sides_of(row, ANSWERS if implied else ("prompt", *ANSWERS), ANSWERS, images=images)
    chosen, rejected = sides["chosen"], sides["rejected"]
    if chosen == rejected:
        raise BadRow("its chosen and rejected answers are the same, so neither is preferred; drop it.")
    if implied:
        prompt, chosen, rejected = _implied(chosen, rejected)
        why = "both sides have to be the same up to the last question"
    else:
        prompt = sides["prompt"]
        check_prompt(prompt, {"chosen": chosen, "rejected": rejected})
        why = "what comes before the last question belongs into 'prompt', once for both"
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        check_answer(name, side, why)
    return Compared(prompt, {"chosen": chosen, "rejected": rejected})


def _implied(chosen: Side, rejected: Side) -> tuple[Side, Side, Side]:
    """(what both begin with, the rest of the one, the rest of the other)."""
    shorter = min(len(chosen), len(rejected))
    shared = next((at for at in range(shorter) if chosen[at] != rejected[at]), None)
    if shared is None:
        shared = shorter - 1  # one side is the beginning of the other, and something has to be left for its answer
    elif shared and chosen[shared - 1] == " ":
        shared -= 1  # the space belongs to the word that differs
    if not shared:
        what = "beginning" if isinstance(chosen, str) else "first turn"
        raise BadRow(f"its answers share no {what}, so no prompt is implied; give the rows a column 'prompt'.")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _check_scores(row: Row) -> None:
    for ours, theirs in SCORES:
        chosen, rejected = listed(row.get(ours)), listed(row.get(theirs))
        if isinstance(chosen, int | float) and isinstance(rejected, int | float) and chosen < rejected:
            raise BadRow(
                f"its {ours!r} is {chosen:g} and its {theirs!r} {rejected:g}, so the rejected answer is the better "
                "one; swap the columns, or drop the row."
            )
