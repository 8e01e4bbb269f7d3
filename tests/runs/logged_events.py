"""The events of a run as its log is told them, and the lines of the log."""

from dataclasses import replace

from tunebook.events import (
    EndReason,
    LearningRateChanged,
    RunEnded,
    RunStarted,
    SampleEvent,
    StepEvent,
)
from tunebook.runs.log_lines import EVENTS_FILE

STARTED = RunStarted(
    total_steps=9, model="m", trainable_parameters=1, total_parameters=2, train_rows=3, eval_rows=0, awaited=False
)
STEP = StepEvent(
    step=1, total_steps=9, loss=2.5, lr=1e-4, tokens_sec=30.0, peak_gb=1.2, elapsed=3.4, num_tokens=99, grad_norm=0.7
)
STEPS = [replace(STEP, step=step, loss=1 / step) for step in range(1, 7)]
RATE = LearningRateChanged(step=4, learning_rate=5e-5)
SAMPLE = SampleEvent(step=2, prompt="Why?", text="ünï \udc80", seconds=0.5)
EVENTS = [STARTED, *STEPS[:2], SAMPLE, *STEPS[2:4], RATE, *STEPS[4:]]
ENDED = RunEnded(step=6, total_steps=9, reason=EndReason.STOPPED, message="done", elapsed=9.0)


def lines_of(folder):
    return (folder / EVENTS_FILE).read_bytes().splitlines(keepends=True)
