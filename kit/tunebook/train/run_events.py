"""The events in which a run tells of itself, and of each of its steps, put together from what it knows.

A plan, the progress and the outcome of a step come in; records and sentences go out. When they are told is the loop's.
"""

from pathlib import Path

from ..events import EndReason, RunEnded, RunStarted, StepEvent
from ..machine import runtime
from ..models.adapters import parameter_counts
from ..runs.resuming import as_typed, resume_line
from ..tokens.batch_order import padding_share
from ..tokens.stored_rows import lengths_of
from .endings import closing_sentence
from .plan import RunPlan
from .progress import RunProgress
from .step import Outcome


def run_started(
    plan: RunPlan, step: int, *, awaited: bool, folder: Path | None, discards: bool, ranks: int = 1
) -> RunStarted:
    """What is about to be trained, `step` steps being done."""
    trainable, total = parameter_counts(plan.loaded.module)
    known = plan.feed.known
    return RunStarted(
        total_steps=plan.total_steps,
        step=step,
        model=plan.loaded.name,
        trainable_parameters=trainable,
        total_parameters=total,
        train_rows=len(known) if plan.feed.is_whole else None,
        eval_rows=len(plan.eval_rows),
        padding_share=padding_share(lengths_of(known), plan.config, max_seq_length=plan.max_seq_length),
        awaited=awaited,
        loss_unit=plan.objective.loss_unit,
        memory_limit_gb=runtime.memory().limit_gb,
        discards=discards,
        folder=None if folder is None else as_typed(folder, plan.config.output_dir),
        config=plan.config.as_plain(),
        exam_rows=0 if plan.exam is None else len(plan.exam),
        objective={} if plan.objective.rows == "texts" else plan.objective.identity(),
        ranks=ranks,
    )


def step_taken(plan: RunPlan, progress: RunProgress, outcome: Outcome) -> StepEvent:
    """The step that `progress` was last advanced by, with the memory there is after it."""
    memory = runtime.memory()
    return StepEvent(
        step=progress.step,
        total_steps=plan.total_steps,
        loss=outcome.loss,
        lr=outcome.rate,
        tokens_sec=outcome.tokens / outcome.seconds,
        peak_gb=memory.peak_gb,
        elapsed=progress.elapsed,
        num_tokens=progress.num_tokens,
        grad_norm=outcome.grad_norm,
        active_gb=memory.active_gb,
        cache_gb=memory.cache_gb,
        total_tokens=progress.total_tokens,
        trainable_tokens=progress.trainable_tokens,
        metrics=outcome.metrics,
    )


def run_ended(
    plan: RunPlan,
    progress: RunProgress,
    reason: EndReason,
    detail: str = "",
    *,
    kept_in: Path | None = None,
    awaited: bool = False,
) -> RunEnded:
    """`detail` is what went wrong in a run that failed or diverged, `kept_in` the folder with its last step."""
    elapsed = progress.elapsed
    sentence = closing_sentence(
        reason,
        progress.step,
        plan.total_steps,
        elapsed,
        detail,
        evals=progress.evals,
        scores=progress.scores,
        by=plan.yardstick,
    )
    if kept_in is not None and reason in (EndReason.STOPPED, EndReason.INTERRUPTED, EndReason.FAILED):
        place, output_dir = as_typed(kept_in, plan.config.output_dir), plan.config.output_dir
        sentence += f" It is kept in {place}, and goes on with {resume_line(place, output_dir, awaited=awaited)}."
    return RunEnded(step=progress.step, total_steps=plan.total_steps, reason=reason, message=sentence, elapsed=elapsed)
