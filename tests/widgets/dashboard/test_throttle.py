"""dashboard/throttle.py: how often something crosses to the browser, and what a step costs."""

import time

import numpy as np

from tests.widgets.dashboard.told_runs import started_run, step_event
from tunebook.events import Command, CommandReceived, EvalEvent, Notice, Working
from tunebook_widgets.dashboard.notebook import NotebookScreen
from tunebook_widgets.dashboard.throttle import Throttle

NOTICE = Notice(step=1, text="odd")
WORKING = Working(step=1, what="training", done=1, total=2)


def test_no_second_holds_more_than_four_messages_however_fast_the_steps():
    throttle = Throttle()
    kinds = [step_event(1, total=9), WORKING, step_event(2, total=9), NOTICE, WORKING]
    sent = [now for i, now in enumerate(np.arange(0, 20, 0.003)) if throttle.allows(kinds[i % len(kinds)], now)]
    in_a_second = [sum(start <= other < start + 1 for other in sent) for start in sent]
    assert max(in_a_second) == 4
    assert len(sent) >= 4 * 19


def test_fast_steps_are_spread_over_the_second():
    throttle = Throttle()
    sent = [now for now in np.arange(0, 20, 0.01) if throttle.allows(step_event(1, total=9), now)]
    assert np.diff(sent).max() < 0.3


def test_with_slow_steps_nothing_is_held_back():
    throttle = Throttle()
    for minute in range(
        5
    ):  # the last micro-batch, a notice, the step and its evaluation, all within a tenth of a second
        assert throttle.allows(WORKING, 60 * minute)
        assert throttle.allows(NOTICE, 60 * minute + 0.03)
        assert throttle.allows(step_event(1, total=9), 60 * minute + 0.06)
        assert throttle.allows(EvalEvent(step=1, loss=1.0, rows=1, tokens=1, seconds=1.0), 60 * minute + 0.1)


def test_a_step_costs_less_than_a_millisecond_with_ten_thousand_behind_it():
    screen, run = NotebookScreen("widget", on_request=lambda request: None), started_run(total=20_000)
    screen.begin(run)
    for step in range(1, 10_001):
        run.add(step_event(step, total=20_000))
    messages, steps, began = [], 1000, time.perf_counter()
    assert screen._view is not None
    screen._view.observe(lambda change: messages.append(change.name), "state")
    spent = 0.0
    for step in range(10_001, 10_001 + steps):
        event, start = step_event(step, total=20_000), time.thread_time()  # other processes share the cores
        run.add(event)
        screen.update(run, event)
        spent += time.thread_time() - start
        time.sleep(0.001)
    assert 2 <= len(messages) <= 4 * (time.perf_counter() - began) + 4
    assert spent / steps < 0.001


def test_dear_messages_are_sent_so_rarely_that_they_take_a_hundredth_of_the_time():
    throttle, cost, sent = Throttle(), 0.05, 0
    for now in np.arange(0, 200, 0.05):
        if throttle.allows(step_event(1, total=9), now):
            throttle.took(cost)
            sent += 1
    assert 0.008 <= sent * cost / 200 <= 0.011


def test_a_click_is_answered_at_once_where_messages_are_dear():
    throttle = Throttle()
    assert throttle.allows(step_event(1, total=9), 10.0)
    throttle.took(0.5)
    assert not throttle.allows(step_event(2, total=9), 20.0)
    assert throttle.allows(CommandReceived(step=2, command=Command.PAUSE), 20.0)
