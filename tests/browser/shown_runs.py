"""A run's page put together from its events, what can be read from its canvas, and what a hand does to it."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tunebook.events import EndReason, EvalEvent, Event, RunEnded, RunStarted, ScoreEvent, StepEvent
from tunebook_widgets.dashboard.live import LiveView
from tunebook_widgets.dashboard.progress import Progress

LIVE = ".tunebook-dashboard"

# Rows of a canvas, from the top and in device pixels, with a pixel close to `color` in the columns `left` to `right`.
ROWS_OF_COLOR = """(canvas, [color, left, right]) => {
    const pen = canvas.getContext("2d");
    const {data} = pen.getImageData(left, 0, right - left, canvas.height);
    const close = (i) => color.every((value, k) => Math.abs(data[i + k] - value) < 40) && data[i + 3] > 60;
    const rows = new Set();
    for (let i = 0; i < data.length; i += 4) if (close(i)) rows.add(Math.floor(i / 4 / (right - left)));
    return [...rows].sort((a, b) => a - b);
}"""
BLUE, GREEN = [0, 114, 178], [0, 128, 93]  # --tunebook-loss and --tunebook-grad of the light theme
PLOT = 48, 984 - 42 - 16  # first and last column of a plot in a page 1000 pixels wide: margins, padding and border off


def view_of(run: Progress) -> LiveView:
    view = LiveView(on_request=lambda request: None)
    view.publish(run)
    return view


def asked_of(page) -> list[dict]:
    """What the page has sent, beside that it is there."""
    return [message for message in page.evaluate("window.sent") if message != {"ready": True}]


def run_of(
    losses: list[float],
    *,
    total: int | None = None,
    model: str = "example/model",
    awaited: bool = True,
    output_dir: str | None = None,
    **started: Any,
) -> Progress:
    run = Progress()
    total = total or len(losses)
    run.add(
        RunStarted(
            total_steps=total,
            model=model,
            trainable_parameters=10,
            total_parameters=100,
            train_rows=8,
            eval_rows=2,
            awaited=awaited,
            config={"learning_rate": 2e-4, "output_dir": output_dir},
            folder=None if output_dir is None else f"{output_dir}/run-001",
            **started,
        )
    )
    for step, loss in enumerate(losses, start=1):
        run.add(step_event(step, total, loss))
    return run


def flat_run(*, steps: int, spike_at: int) -> Progress:
    return run_of([9.0 if step == spike_at else 1.0 for step in range(1, steps + 1)])


def preference_run(*, steps: int = 60, eval_steps: int = 20, started: dict[str, Any] | None = None) -> list[Event]:
    """What a run of DPO tells: the margin grows, and both rewards fall in the end. Its noise is the same in each."""
    told: list[Event] = [
        replace(run_of([], total=steps).started, objective={"objective": "DPO", "beta": 0.1}, **(started or {}))
    ]
    for step in range(steps + 1):
        share, wobble = step / steps, math.sin(7.3 * step) * math.cos(2.1 * step)
        chosen, rejected = share - 2 * share**2 + 0.2 * wobble, -2 * share + 0.3 * wobble
        metrics = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": 0.5 + 0.25 * (step % 3) * share,
            "rewards/margins": chosen - rejected,
            "logps/chosen": -60 + 10 * chosen,
            "logps/rejected": -50 + 10 * rejected,
        }
        loss = math.log1p(math.exp(rejected - chosen))
        if step:
            told.append(replace(step_event(step, steps, loss), metrics=metrics))
        if step % eval_steps == 0:
            held_out = {name: 0.9 * value for name, value in metrics.items()}
            told.append(EvalEvent(step=step, loss=0.9 * loss, rows=8, tokens=80, seconds=0.1, metrics=held_out))
    return [*told, ended_run(steps)]


def exam_run(*, steps: int = 8) -> list[Event]:
    """What a run of the next token tells that takes an exam of two metrics on scales of their own every second step."""
    told: list[Event] = [run_of([], total=steps).started]
    for step in range(steps + 1):
        told += [step_event(step, steps, 3.0 - step / steps)] if step else []
        if step % 2 == 0:
            found = {"exact_match": step / 10, "perplexity": 200.0 - 20 * step}
            told.append(ScoreEvent(step=step, scores=found, rows=40, seconds=1.0, exam="ab"))
    return [*told, ended_run(steps)]


def told_run(events: Iterable[Event]) -> Progress:
    run = Progress()
    for event in events:
        run.add(event)
    return run


def ended_run(step: int) -> RunEnded:
    return RunEnded(step=step, total_steps=step, reason=EndReason.FINISHED, message="", elapsed=4.0 * step)


def step_event(step: int, total: int, loss: float) -> StepEvent:
    return StepEvent(
        step=step,
        total_steps=total,
        loss=loss,
        lr=1e-4,
        tokens_sec=1000.0,
        peak_gb=1.5,
        elapsed=4.0 * step,
        num_tokens=500 * step,
        grad_norm=0.5,
    )
