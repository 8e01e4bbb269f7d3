"""How a run ended, in words: the sentence it closes with, and what to change when memory or the GPU failed it."""

import traceback
from collections.abc import Sequence

import mlx.core as mx

from ..config import TrainingConfig
from ..events import EndReason, EvalEvent, ScoreEvent
from ..machine import runtime
from ..machine.gpu_errors import GpuFault, gpu_fault
from ..runs.best import BY_LOSS, Yardstick

# A step whose loss or gradients are not finite is not applied, so the weights that gave it stay. After this many of
# them in a row the rows are not the cause, and the run ends.
STEPS_NOT_FINITE = 3

TORN = (
    "An update failed, and there was not the memory to keep the weights from before it: those in the model are of no "
    "step. Load the model again and go on from the checkpoint before with trainer.train(resume_from_checkpoint=True)."
)


_SMALLER = "a smaller micro-batch (lower per_device_train_batch_size, raise gradient_accumulation_steps by as much)"
_FAULTS: dict[GpuFault, str] = {
    "watchdog": "The system took the GPU away because work on it kept the display waiting; a micro-batch is computed "
    f"once more before a run ends for it. What helps: let the display sleep while a run goes on, take {_SMALLER}, or "
    "start Jupyter with AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1 in its environment. The run goes on from its last step with "
    "trainer.train(resume_from_checkpoint=True).",
    "buffers": f"There are more buffers than the GPU's driver can hold. What helps: {_SMALLER}, "
    "gradient_checkpointing=True, or a fresh kernel.",
    "driver": "The GPU's driver failed. Restart the kernel, and go on from the last step with "
    "trainer.train(resume_from_checkpoint=True); where it happens again, python -m tunebook doctor checks the machine.",
}


def closing_sentence(
    reason: EndReason,
    step: int,
    total: int,
    seconds: float,
    detail: str,
    *,
    evals: Sequence[EvalEvent] = (),
    scores: Sequence[ScoreEvent] = (),
    by: Yardstick = BY_LOSS,
) -> str:
    """One sentence for people; `detail` is what went wrong in a run that failed or diverged."""
    better = "rising" if by.higher_is_better else "falling"
    opening = {
        EndReason.FINISHED: "Finished its one step" if total == 1 else f"Finished all {total} steps",
        EndReason.STOPPED: f"Stopped on request after step {step} of {total}",
        EndReason.DISCARDED: f"Stopped on request after step {step} of {total}, keeping nothing,",
        EndReason.EARLY_STOPPED: f"Stopped early, the {by.name} no longer {better}, after step {step} of {total}",
        EndReason.INTERRUPTED: f"Interrupted after step {step} of {total}",
        EndReason.NOT_FINITE: f"Ended after step {step} of {total}, because {STEPS_NOT_FINITE} steps in a row were not "
        f"finite and not applied{f' ({detail})' if detail else ''}",
        EndReason.FAILED: f"Failed after step {step} of {total} ({detail})",
    }[reason]
    minutes, rest = divmod(round(seconds), 60)
    took = f"{minutes} min {rest} s" if minutes else f"{rest} s"
    learned = f"; held-out loss {evals[0].loss:.3f} → {evals[-1].loss:.3f}" if len(evals) > 1 else ""
    marks = by.measured((), scores) if by.metric is not None else []
    learned += f"; {by.name} {by.number(marks[0].value)} → {by.number(marks[-1].value)}" if len(marks) > 1 else ""
    return f"{opening} in {took}{learned}."


def explained(error: Exception, config: TrainingConfig) -> Exception:
    """`error`, or in place of MLX's words for a failure of a GPU or of memory an error that says what to change.

    Memory is given back then, for saving needs it: the frames the error came through hold the arrays of the step.
    """
    fault = gpu_fault(error)
    if fault is None and not isinstance(error, MemoryError):
        return error
    traceback.clear_frames(error.__traceback__)
    mx.clear_cache()
    if fault is None:
        return error
    if fault != "memory":
        return RuntimeError(f"{_FAULTS[fault]} MLX said: {error}")
    smaller = f"per_device_train_batch_size (now {config.per_device_train_batch_size})"
    more = f"gradient_accumulation_steps (now {config.gradient_accumulation_steps})"
    moves = [f"lower {smaller} and raise {more} by as much"] if config.per_device_train_batch_size > 1 else []
    moves += [] if config.gradient_checkpointing else ["set gradient_checkpointing=True"]
    moves += ["lower max_seq_length", "load the model with load_in_4bit=True"]
    return MemoryError(
        f"Memory ran out at a peak of {runtime.memory().peak_gb:.1f} GB. In this order: {'; '.join(moves)}."
    )
