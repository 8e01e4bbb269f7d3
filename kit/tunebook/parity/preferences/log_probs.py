"""How likely the tokens of answers are, and what the reference says of answers, of a run from its start and of another.

torch reads the first one row at a time and unpadded; of the reference, TRL's own trainer is asked.
"""

import numpy as np

from ...objectives.reference import Reference
from ..case import Case
from ..finding import Finding
from ..references import torch_model, trl_losses
from ..references.mlx_lm_run import Arrays

NATS = 1e-3  # of one token, float32 on both sides
ROWS = 1e-4  # of an answer, relative


def log_probs(case: Case) -> list[Finding]:
    """The log-probability of each token of some answers, of a model whose adapters all act."""
    case.put(case.filled)
    parts, loaded = case.procedure.answers, case.adapted
    batch = parts.collate(loaded.family, case.few, case.max_seq_length)
    found = parts.logps(case.compared, loaded.family)(loaded.module, batch, parts.positions(case.compared, batch))
    ours = np.array(found.logps)
    worst, at = -1.0, ""
    for row, sequence in enumerate(case.sample):
        logits = torch_model.logits(case.theirs, sequence.tokens[:-1]).astype(np.float64)  # (T-1, V)
        targets = sequence.tokens[1:]
        theirs = logits[np.arange(len(targets)), targets] - np.logaddexp.reduce(logits, axis=-1)
        places = np.flatnonzero(sequence.loss_mask[1:])
        off = np.abs(ours[row, places] - theirs[places])
        if not off.max() <= worst:
            worst = float(off.max())
            place = places[off.argmax()]
            numbers = f"{ours[row, place]:.5f} here, {theirs[place]:.5f} there"
            at = f"Largest at {case.token(sequence, int(place) + 1)}: {numbers}."
    case.put(case.start)
    return [
        Finding(
            stage="log-probs",
            what="log-probability of each token of the answers, here and in transformers",
            measured=worst,
            tolerance=NATS,
            unit="nats",
            evidence=at,
        )
    ]


def reference(case: Case) -> list[Finding]:
    """What the reference says of each answer once the model is another: of a run that began fresh, of one that did not.

    Nothing is compared for an objective that asks no reference.
    """
    if not case.compared.needs_reference:
        return []
    fresh = "what the reference says of each answer, here and in TRL"
    tuned = "the same where the run begins with a model that was tuned before"
    return [
        _after(case, case.start, fresh, as_it_is=False),
        _after(case, {name: 0.5 * array for name, array in case.filled.items()}, tuned, as_it_is=True),
    ]


def _after(case: Case, start: Arrays, what: str, *, as_it_is: bool) -> Finding:
    """The reference of a run that begins at `start`, asked when the model is `filled`."""
    objective, loaded, few = case.compared, case.adapted, case.few
    case.put(start)
    settled = Reference(loaded.module, objective)
    settled.settle()
    theirs = trl_losses.reference_logps(objective, case.with_head, few, as_it_is=as_it_is)
    case.put(case.filled)
    parts = case.procedure.answers
    batch = parts.collate(loaded.family, few, case.max_seq_length)
    ours = np.array(parts.know(objective, batch, loaded, settled)["reference_logps"])
    off = np.abs(ours - theirs) / np.abs(theirs)
    row = int(off.argmax())
    because = "" if off[row] <= ROWS else _why(case, ours)
    case.put(case.start)
    return Finding(
        stage="reference",
        what=what,
        measured=float(off[row]),
        tolerance=ROWS,
        unit="relative",
        evidence=f"Largest for {answer(case, row)}: {ours[row]:.4f} here, {theirs[row]:.4f} there.{because}",
    )


def _why(case: Case, ours: np.ndarray) -> str:
    """What a reference that is wrong is instead, where it is one of these; both sides are `filled`."""
    others = {
        "what the model itself says by now: the reference moves with it": True,
        "what the model says without its adapters, with which the run began": False,
    }
    for what, as_it_is in others.items():
        theirs = trl_losses.reference_logps(case.compared, case.with_head, case.few, as_it_is=as_it_is)
        if np.allclose(ours, theirs, rtol=ROWS):
            return f" It is {what}."
    return ""


def answer(case: Case, sequence: int) -> str:
    """A sequence of `case.sample` as a person would name it."""
    row = case.sample[sequence]
    if case.compared.rows != "pairs":
        return f"the answer of row {row.number}"
    return f"the {'chosen' if sequence < len(case.few) else 'rejected'} answer of row {row.number}"
