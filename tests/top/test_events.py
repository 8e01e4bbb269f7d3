import math

import pytest

from tunebook.events import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EndReason,
    EvalEvent,
    LearningRateChanged,
    Notice,
    RanksEvent,
    Request,
    RunEnded,
    RunStarted,
    ScoreEvent,
    StepEvent,
    Working,
    from_json,
    to_json,
)

STEP = StepEvent(
    step=1, total_steps=4, loss=2.5, lr=1e-4, tokens_sec=30.0, peak_gb=1.2, elapsed=3.4, num_tokens=99, grad_norm=0.7
)
EVERY_KIND = [
    RunStarted(
        total_steps=4,
        model="m",
        trainable_parameters=1,
        total_parameters=2,
        train_rows=3,
        eval_rows=4,
        awaited=True,
        config={"seed": 1},
    ),
    STEP,
    EvalEvent(step=2, loss=1.5, rows=3, tokens=30, seconds=0.5),
    ScoreEvent(step=2, scores={"numeric": 0.5, "bleu": 1}, not_scored={"bleu": 3}, rows=4, seconds=0.5, exam="ab"),
    Notice(step=2, text='a "quoted"\nline with ünïcode'),
    CheckpointSaved(step=2, path="run-001/checkpoints/step-00002"),
    Working(step=2, what="training", done=1, total=2),
    CommandReceived(step=2, command=Command.STOP),
    CommandReceived(step=2, command=Command.LEARNING_RATE, value=5e-5),
    LearningRateChanged(step=2, learning_rate=5e-5),
    RanksEvent(
        step=2,
        names=["a 0", "b 1"],
        tokens_sec=[3.0, 4],
        waiting=[0.5, 0.0],
        exchanging=[0.1, 0.1],
        active_gb=[1.5, 2.5],
        peak_gb=[2.5, 3.5],
    ),
    RunEnded(step=4, total_steps=4, reason=EndReason.FINISHED, message="done", elapsed=9.0),
]


@pytest.mark.parametrize("event", EVERY_KIND, ids=lambda event: type(event).__name__)
def test_an_event_survives_its_line_of_json_unchanged(event):
    line = to_json(event)
    assert "\n" not in line
    assert from_json(line) == event


def test_a_loss_that_is_not_finite_survives_too():
    line = to_json(EvalEvent(step=1, loss=math.nan, rows=1, tokens=1, seconds=0.0))
    assert math.isnan(from_json(line).loss)


def test_a_torn_or_unknown_line_is_refused_by_name():
    with pytest.raises(ValueError, match="Not a line"):
        from_json(to_json(STEP)[:20])
    with pytest.raises(ValueError, match="'later'"):
        from_json('{"event": "later"}')


def test_perplexity_is_the_exponential_of_the_loss_and_never_overflows():
    assert EvalEvent(step=0, loss=1.0, rows=1, tokens=1, seconds=0.0).perplexity == pytest.approx(math.e)
    assert EvalEvent(step=0, loss=1e6, rows=1, tokens=1, seconds=0.0).perplexity == math.inf


def test_the_step_event_holds_the_nine_values_of_the_callback_in_their_order():
    assert list(vars(STEP))[:9] == (
        ["step", "total_steps", "loss", "lr", "tokens_sec", "peak_gb", "elapsed", "num_tokens", "grad_norm"]
    )


@pytest.mark.parametrize("rate", [None, 0.0, -1e-4, math.nan, math.inf])
def test_a_learning_rate_that_is_none_cannot_be_asked_for(rate):
    with pytest.raises(ValueError, match="it must be a finite number above 0"):
        Request(Command.LEARNING_RATE, rate)


def test_only_a_learning_rate_comes_with_a_value():
    with pytest.raises(ValueError, match="stop takes no value, and was given 3"):
        Request(Command.STOP, 3)
