"""Whole runs, loss by loss: torch's twice, ours and torch's, ours and stock mlx-lm's."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...data.encoded import Encoded
from ..case import Case
from ..finding import Finding
from ..procedure import losses
from ..references import mlx_lm_run, torch_model

REPEATED = 2  # steps of the reference run that are taken twice
REPEAT, CURVE = 1e-6, 1e-3  # relative
STOCK = 1e-4  # relative: over a large vocabulary mlx-lm's sums are too small by that in MLX's CPU build


def reference(case: Case) -> list[Finding]:
    """The run under torch itself: every loss is a number, and its first steps, taken again, come out the same."""
    curve = case.reference_curve
    case.put(case.start)
    again = list(torch_model.losses(case.theirs, case.encoded, case.training, steps=REPEATED))
    case.put(case.start)
    off, step = _largest(again, curve[: len(again)])
    finite = bool(np.isfinite(curve).all())
    return [
        Finding(
            stage="reference",
            what="the run under torch, and its first steps once more",
            measured=off if finite else float("nan"),
            tolerance=REPEAT,
            unit="relative",
            evidence=f"From {curve[0]:.4f} to {curve[-1]:.4f} in {len(curve)} steps; step {step} repeats least well."
            if finite
            else f"Its loss at step {int(np.argmin(np.isfinite(curve))) + 1} is not finite; lower the learning rate.",
            numbers={"there": curve},
        )
    ]


def curve(case: Case) -> list[Finding]:
    """The losses of every step of a run of ours, from adapters of its own making, and of torch's."""
    case.put_ours(case.own_start)
    ours = list(losses(case.procedure, case.adapted, case.encoded, case.training, case.max_seq_length))
    case.put_ours(case.own_start)
    return [compared("curve", f"{case.procedure.name} and torch", ours, case.reference_curve, CURVE)]


def mlx_lm(case: Case) -> list[Finding]:
    """The same with stock mlx-lm's `train`: where its loss is right, on rows supervised whole, one batch a step."""
    config = replace(
        case.training,
        gradient_accumulation_steps=1,
        max_steps=min(10, case.training.max_steps or 10),
        num_train_epochs=None,
        lr_scheduler_type="constant",
        warmup_steps=0,
        warmup_ratio=None,
        optim="adamw",
        max_grad_norm=None,
        max_grad_leaf_norm=None,
        max_grad_value=None,
        lora_plus_ratio=None,
        embedding_learning_rate=None,
    )
    rows = [_whole(row) for row in case.encoded]
    targets = [name.removesuffix(".lora_a") for name in case.start if name.endswith(".lora_a")]
    module = mlx_lm_run.with_adapters(case.bare.folder, case.lora, targets)
    theirs = mlx_lm_run.losses(module, rows, config, case.max_seq_length)
    case.put_ours(case.own_start)
    ours = list(losses(case.procedure, case.adapted, rows, config, case.max_seq_length))
    case.put_ours(case.own_start)
    return [compared("mlx-lm", f"{case.procedure.name} and mlx-lm's own train", ours, theirs, STOCK)]


def _whole(row: Encoded) -> Encoded:
    """A row with every token supervised."""
    return replace(row, loss_mask=np.ones_like(row.loss_mask))


def compared(stage: str, what: str, ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> Finding:
    """Two runs, step by step; `tolerance` is relative."""
    off, step = _largest(ours, theirs)
    parted = next((at for at, pair in enumerate(zip(ours, theirs, strict=True), 1) if _off(*pair) > tolerance), None)
    at = f"They part at step {parted}; most" if parted else "Most"
    return Finding(
        stage=stage,
        what=f"loss of every step, {what}",
        measured=off,
        tolerance=tolerance,
        unit="relative",
        evidence=f"{at} apart at step {step} of {len(ours)}: {ours[step - 1]:.6f} here, {theirs[step - 1]:.6f} there.",
        numbers={"here": list(ours), "there": list(theirs)},
    )


def _largest(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, int]:
    """(the largest relative difference, the step it is at); not a number is larger than any."""
    off = [_off(*pair) for pair in zip(ours, theirs, strict=True)]
    step = max(range(len(off)), key=lambda at: (off[at] != off[at], off[at]))
    return off[step], step + 1


def _off(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / abs(theirs)
