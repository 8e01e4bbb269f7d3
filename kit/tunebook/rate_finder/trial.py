"""A run of a few steps whose learning rate rises with each: weights, random state and mode are as before afterwards.

It is an ordinary run (`train/loop.py`) with another configuration, so that what is tried is what will be trained: the
objective, the batches, packing, images, and the order of the rows. It leaves nothing on the disk.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..config import TrainingConfig
from ..data.encoded import Encoded
from ..events import Command, EndReason, EvalEvent, Event, Request, RunEnded
from ..jobs.work import Work, begun
from ..machine.progress_bars import progress
from ..models.tensors import flat, random_state_kept
from ..runs.listeners import Audience, drain
from ..runs.lock import RunLock
from .found import RateFound, has_run_away

ROWS = 8  # that are measured after each step


def find(work: Work, rates: Sequence[float]) -> RateFound:
    """The losses after one step at each of `rates`, lowest first, of the same few rows.

    The trainable parameters are held twice meanwhile. Ends early where the loss runs away. Raises KeyboardInterrupt for
    an interrupt, and what a run raises, both with everything put back.
    """
    rows, said = _measured(work)
    plan = replace(work.plan, config=_config(work.plan.config, rates), eval_rows=rows, prompts=(), exam=None)
    module, losses = plan.loaded.module, []
    before, was_training = flat(module.trainable_parameters()), module.training
    bar = progress([], "Trying learning rates", total=len(rates))
    run, _ = begun(replace(work, plan=plan, notices=()), _no_folder)
    ended: list[EndReason] = []

    def hear(event: Event) -> None:
        if isinstance(event, RunEnded):
            ended.append(event.reason)
        if not isinstance(event, EvalEvent) or len(losses) > event.step:
            return
        losses.append(event.loss)
        bar.update(event.step - bar.n)
        if has_run_away(losses):
            run.controls.ask(Request(Command.STOP))
        elif event.step < len(rates):
            run.controls.ask(Request(Command.LEARNING_RATE, rates[event.step]))

    try:
        with random_state_kept(), run.interrupts:
            drain(run.events(awaited=False), Audience([("The trial of learning rates", hear)], None, []))
    finally:
        module.load_weights(list(before.items()), strict=False)
        module.train(was_training)
        bar.close()
    if EndReason.INTERRUPTED in ended:
        raise KeyboardInterrupt
    return RateFound(rates=tuple(rates[: len(losses) - 1]), losses=tuple(losses), measured=said)


def _measured(work: Work) -> tuple[Sequence[Encoded], str]:
    """The rows whose loss is looked at, and what they are in words."""
    if work.plan.eval_rows:
        rows = work.plan.eval_rows[:ROWS]
        return rows, f"{len(rows)} held-out row{'s' * (len(rows) != 1)}"
    rows = work.plan.feed.known[:ROWS]
    return rows, f"{len(rows)} training row{'s' * (len(rows) != 1)}, as none are held out"


def _config(config: TrainingConfig, rates: Sequence[float]) -> TrainingConfig:
    """`config` for a step at each of `rates`: nothing is kept and nothing is looked at but one loss."""
    embedding = config.embedding_learning_rate
    return replace(
        config,
        num_train_epochs=None,
        max_steps=len(rates),
        learning_rate=rates[0],
        # In the ratio to the others that it will have.
        embedding_learning_rate=None if embedding is None else embedding * rates[0] / config.learning_rate,
        lr_scheduler_type="constant",
        lr_scheduler_kwargs=None,
        warmup_steps=0,
        warmup_ratio=None,
        min_lr_rate=0.0,
        eval_steps=1,
        score_steps=None,
        load_best_model_at_end=False,
        early_stopping_patience=None,
        metric_for_best_model=None,
        sample_prompts=(),
        sample_steps=None,
        output_dir=None,
    )


def _no_folder(run_folder: object) -> RunLock:
    raise AssertionError(f"A trial has no output_dir, and was given {run_folder}.")
