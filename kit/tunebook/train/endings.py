"""How a run ended, in words: the sentence it closes with, and what to change when memory ran out."""

import traceback
from collections.abc import Sequence

import mlx.core as mx

from ..config import TrainingConfig
from ..events import EndReason, EvalEvent
from ..machine import runtime

# After this many steps in a row whose loss or gradients are not finite, waiting for a better one is hope.
STEPS_NOT_FINITE = 3

TORN = (
    "An update failed, and there was not the memory to keep the weights from before it: those in the model are of no "
    "step. Load the model again and go on from the checkpoint before with trainer.train(resume_from_checkpoint=True)."
)


def closing_sentence(
    reason: EndReason, step: int, total: int, seconds: float, evals: Sequence[EvalEvent], detail: str
) -> str:
    """One sentence for people; `detail` is what went wrong in a run that failed or diverged."""
    opening = {
        EndReason.FINISHED: f"Finished all {total} steps",
        EndReason.STOPPED: f"Stopped on request after step {step} of {total}",
        EndReason.DISCARDED: f"Stopped on request after step {step} of {total}, keeping nothing,",
        EndReason.EARLY_STOPPED: f"Stopped early, the held-out loss no longer falling, after step {step} of {total}",
        EndReason.INTERRUPTED: f"Interrupted after step {step} of {total}",
        EndReason.NOT_FINITE: f"Ended after step {step} of {total}, because {STEPS_NOT_FINITE} steps in a row were not "
        f"finite and not applied{f' ({detail})' if detail else ''}",
        EndReason.FAILED: f"Failed after step {step} of {total} ({detail})",
    }[reason]
    minutes, rest = divmod(round(seconds), 60)
    took = f"{minutes} min {rest} s" if minutes else f"{rest} s"
    learned = f"; held-out loss {evals[0].loss:.3f} → {evals[-1].loss:.3f}" if len(evals) > 1 else ""
    return f"{opening} in {took}{learned}."


def explained(error: Exception, config: TrainingConfig) -> Exception:
    """`error`, or in place of MLX's words for a lack of memory an error that says what to change.

    The memory is given back then, for saving needs it: the frames the error came through hold the arrays of the step.
    """
    if not runtime.is_out_of_memory(error):
        return error
    traceback.clear_frames(error.__traceback__)
    mx.clear_cache()
    smaller = f"per_device_train_batch_size (now {config.per_device_train_batch_size})"
    more = f"gradient_accumulation_steps (now {config.gradient_accumulation_steps})"
    moves = [f"lower {smaller} and raise {more} by as much"] if config.per_device_train_batch_size > 1 else []
    moves += [] if config.gradient_checkpointing else ["set gradient_checkpointing=True"]
    moves += ["lower max_seq_length", "load the model with load_in_4bit=True"]
    return MemoryError(
        f"Memory ran out at a peak of {runtime.memory().peak_gb:.1f} GB. In this order: {'; '.join(moves)}."
    )
