"""The gradient of one batch, tensor by tensor, against torch's; both sides start from the same adapters, none zero."""

import numpy as np

from ...models.tensors import flat
from ..case import Case
from ..finding import Finding
from ..procedure import passed
from ..references import torch_model
from ..references.mlx_lm_run import Arrays

TOLERANCE = 0.01  # of a tensor's own norm


def gradients(case: Case) -> list[Finding]:
    """The norm of the difference over the norm, of the tensor where that is largest."""
    case.put(case.filled)
    one = passed(case.procedure, case.adapted, case.sample, case.max_seq_length)
    _, tree = case.procedure.accumulate([one])
    ours = {name: np.array(array) for name, array in flat(tree).items()}
    _, theirs = torch_model.gradients(case.theirs, case.sample)
    case.put(case.start)
    return [largest("gradient of one batch for each adapter, here and by torch's autograd", ours, theirs)]


def largest(what: str, ours: Arrays, theirs: Arrays) -> Finding:
    """The tensor that differs most of those there, by its own norm."""
    off = {
        name: float(np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name])) if name in ours else 1.0
        for name in theirs
    }
    worst = max(off, key=lambda name: (not off[name] <= np.inf, off[name]))
    return Finding(
        stage="gradients",
        what=what,
        measured=off[worst],
        tolerance=TOLERANCE,
        unit="relative",
        evidence=f"Largest for {worst}" + ("." if worst in ours else ", which is not trained here."),
        numbers={"tensors": off},
    )
