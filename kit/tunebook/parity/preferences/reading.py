"""Token ids of prompts and answers, and which of them count as an answer: rows as we read them, and as TRL does.

TRL gets each row alone, so that one it drops is known by its number.
"""

from collections.abc import Iterator

import numpy as np

from ...data.encoded import Encoded, sequences_of
from ..case import Case
from ..finding import Finding
from ..references import trl_rows

TokensAndMask = tuple[np.ndarray, np.ndarray]  # (T,) ids, (T,) bool
NOTHING = np.zeros(0, np.int32), np.zeros(0, bool)
SIDES = ("chosen", "rejected")


def tokens(case: Case) -> list[Finding]:
    """How many token ids differ, a row left out or cut short counting all that is missing."""
    different, at, total = 0, "", 0
    for number, side, (here, _), (there, answer) in _sides(case):
        total += len(there)
        shorter = min(len(here), len(there))
        wrong = np.flatnonzero(here[:shorter] != there[:shorter]).tolist()
        wrong += range(shorter, max(len(here), len(there)))
        if wrong and not different:
            ids = f"{_id(case, here, wrong[0])} here, {_id(case, there, wrong[0])} there"
            at = f"The first is {_named(number, side, wrong[0], answer)}: {ids}."
            if case.tokenizer.eos_token_id in there[wrong[0] : wrong[0] + 1]:
                at += " It is the end token."
        different += len(wrong)
    what = "prompt, chosen and rejected" if case.compared.rows == "pairs" else "prompt and answer"
    return [
        Finding(
            stage="tokens",
            what=f"ids of {what}, here and in TRL",
            measured=different,
            tolerance=0,
            unit="ids",
            evidence=at or f"All {total} ids of {len(case.rows)} rows are the same.",
        )
    ]


def supervision(case: Case) -> list[Finding]:
    """How many tokens count as an answer's on one side only, in the rows and again in the padded batch of some."""
    different, at, total = 0, "", 0
    for number, side, (_, here), (_, there) in _sides(case):
        shorter = min(len(here), len(there))
        wrong = np.flatnonzero(here[:shorter] != there[:shorter])
        if len(wrong) and not different:
            at = _one_sided(_named(number, side, wrong[0], there), bool(here[wrong[0]]))
        different += len(wrong)
        total += int(there.sum())
    few = case.few
    batch = case.procedure.answers.collate(case.bare.family, few, case.max_seq_length)
    found, lengths = np.array(batch["loss_mask"]), [len(sequence.tokens) for sequence in sequences_of(few)]
    for row, (mask, sequence) in enumerate(zip(found, sequences_of(few), strict=True)):
        expected = np.zeros_like(mask)
        expected[: lengths[row]] = sequence.loss_mask
        wrong = np.flatnonzero(mask != expected)
        if len(wrong) and not different:
            token = f"token {wrong[0]} of sequence {row} of a padded batch"
            at = _one_sided(token, bool(mask[wrong[0]]), " It is padding." if wrong[0] >= lengths[row] else "")
        different += len(wrong)
    return [
        Finding(
            stage="supervision",
            what="tokens that count as an answer's, here and in TRL",
            measured=different,
            tolerance=0,
            unit="tokens",
            evidence=at or f"All {total} tokens of the answers of {len(case.rows)} rows are the same.",
        )
    ]


def _sides(case: Case) -> Iterator[tuple[int, str, TokensAndMask, TokensAndMask]]:
    """(row, which of its answers, the sequence as we read it, as TRL does); what one leaves out is empty."""
    ours = {row.number: row for row in case.encoded}
    for number, row in enumerate(map(dict, case.rows)):
        if case.compared.rows == "pairs":
            [theirs] = trl_rows.pairs([row], case.tokenizer, case.max_seq_length) or [[]]
        else:
            read = trl_rows.labelled([row], case.tokenizer, case.max_seq_length, batch_size=1)
            theirs = read[0][0] if read else []
        here = _sequences(ours.get(number))
        there = [(np.array(ids), np.array(mask, bool)) for ids, mask in theirs]
        for index in range(max(len(here), len(there))):
            side = SIDES[index] if case.compared.rows == "pairs" else "judged"
            one, other = (of[index] if index < len(of) else NOTHING for of in (here, there))
            yield number, side, one, other


def _sequences(row: Encoded | None) -> list[TokensAndMask]:
    return [] if row is None else [(side.tokens, side.loss_mask) for side in row.sequences]


def _named(number: int, side: str, position: int, answer: np.ndarray) -> str:
    """`answer` (T,) says where TRL has it."""
    begins = int(np.flatnonzero(answer)[0]) if answer.any() else len(answer)
    if position < begins:
        return f"token {position} of the prompt of row {number}, before its {side} answer"
    return f"token {position - begins} of the {side} answer of row {number}"


def _id(case: Case, ids: np.ndarray, position: int) -> str:
    if position >= len(ids):
        return "nothing"
    return f"{ids[position]} ({case.tokenizer.decode([int(ids[position])])!r})"


def _one_sided(token: str, here: bool, why: str = "") -> str:
    return f"The first is {token}, counted {'here' if here else 'there'} alone.{why}"
