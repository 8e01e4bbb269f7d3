"""dashboard/wording.py: where a run stands, in words."""

import statistics

import pytest

from tests.widgets.dashboard.told_runs import ended_run, started_run, step_event
from tunebook.events import (
    Command,
    CommandReceived,
    EndReason,
    EvalEvent,
    SampleEvent,
    Working,
)
from tunebook_widgets.dashboard.freeze import frozen_table
from tunebook_widgets.dashboard.wording import about, duration, headline


def test_the_time_left_is_the_median_of_recent_steps_times_the_steps_to_go():
    run, elapsed = started_run(total=100), 30.0  # the first step compiles
    for step in range(1, 41):
        elapsed += 20.0 if step % 10 == 0 else 2.0 + step % 3  # every tenth is followed by an evaluation
        run.add(step_event(step, total=100, elapsed=elapsed))
    recent = [20.0 if step % 10 == 0 else 2.0 + step % 3 for step in range(9, 41)]
    assert run.seconds_left == pytest.approx(60 * statistics.median(recent))


def test_no_time_left_is_claimed_before_a_second_step():
    run = started_run(total=100)
    run.add(step_event(1, total=100, elapsed=30.0))
    assert run.seconds_left is None
    assert headline(run) == "Step 1 of 100 · loss 1.500"


def test_the_headline_says_where_the_run_stands():
    run = started_run(total=40)
    for step in range(1, 13):
        run.add(step_event(step, total=40, elapsed=6.0 * step))
        if step == 10:
            run.add(EvalEvent(step=10, loss=1.91, rows=4, tokens=40, seconds=1.0))
    assert headline(run) == "Step 12 of 40 · loss 1.500 · about 3 min left · best held-out 1.910 at 10"


def test_a_run_is_not_called_paused_while_a_step_is_in_progress():
    run = started_run(total=40)
    run.add(CommandReceived(step=0, command=Command.PAUSE))
    run.add(Working(step=1, what="training", done=1, total=2))
    assert headline(run) == "Pause heard before the first step · finishing what is in progress"
    run.add(step_event(1, total=40))
    assert headline(run) == "Pause heard after step 1 of 40 · finishing what is in progress"
    run.add(Working(step=1, what="paused", done=1, total=40))
    assert headline(run) == "Paused after step 1 of 40"
    run.add(SampleEvent(step=1, prompt="a", text="b", seconds=0.1))
    assert headline(run) == "Paused after step 1 of 40"
    run.add(CommandReceived(step=1, command=Command.RESUME))
    run.add(CommandReceived(step=1, command=Command.PAUSE))
    assert headline(run).startswith("Pause heard")


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (3, "3.0 s", "a few seconds"),
        (42, "42 s", "about 40 s"),
        (59.7, "1 min 00 s", "about 1 min"),
        (192, "3 min 12 s", "about 3 min"),
        (3599.8, "1 h 00 min", "about 60 min"),
        (7500, "2 h 05 min", "about 2 h"),
        (9000, "2 h 30 min", "about 2½ h"),
    ],
)
def test_durations_read_as_one_would_say_them(seconds, exact, rough):
    assert (duration(seconds), about(seconds)) == (exact, rough)


def test_what_is_being_computed_is_said_until_it_is_done():
    run = started_run(total=9)
    run.add(Working(step=0, what="evaluating", done=3, total=12))
    assert headline(run) == "Measuring the held-out loss before training · batch 3 of 12"
    run.add(Working(step=0, what="precomputing", done=2, total=7))
    assert headline(run) == "Asking the reference once for all steps · batch 2 of 7"
    run.add(EvalEvent(step=0, loss=2.5, rows=4, tokens=40, seconds=1.0))
    run.add(Working(step=1, what="testing", done=1, total=2))
    assert headline(run) == "Trying on the first rows whether the pass is computed right"
    run.add(Working(step=1, what="training", done=1, total=4))
    assert headline(run) == "Held-out loss before training: 2.500 · the first step is being computed"


@pytest.mark.parametrize("reason", EndReason)
def test_there_are_words_for_every_way_a_run_can_end(reason):
    run = started_run(total=9)
    run.add(step_event(3, total=9))
    run.add(ended_run(3, 9, reason))
    sentence = frozen_table(run)["text/plain"].splitlines()[0]
    assert sentence.endswith(".")
    assert "9" in sentence
