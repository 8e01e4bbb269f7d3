"""The events in which a run tells of itself, and of each of its steps, put together from what it knows.

A plan, the progress and the outcome of a step come in; records and sentences go out. When they are told is the loop's.
"""

from ..events import EndReason, RunEnded, RunStarted, StepEvent
from ..machine import runtime
from ..models.adapters import parameter_counts
from ..tokens.batch_order import padding_share
from ..tokens.stored_rows import lengths_of
from .endings import closing_sentence
from .plan import RunPlan
from .progress import RunProgress
from .step import Outcome


def run_started(plan: RunPlan, step: int, *, awaited: bool) -> RunStarted:
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
        memory_limit_gb=runtime.memory().limit_gb,
        config=plan.config.as_plain(),
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
    )


def run_ended(plan: RunPlan, progress: RunProgress, reason: EndReason, detail: str = "") -> RunEnded:
    """`detail` is what went wrong in a run that failed or diverged."""
    elapsed = progress.elapsed
    return RunEnded(
        step=progress.step,
        total_steps=plan.total_steps,
        reason=reason,
        message=closing_sentence(reason, progress.step, plan.total_steps, elapsed, progress.evals, detail),
        elapsed=elapsed,
    )
