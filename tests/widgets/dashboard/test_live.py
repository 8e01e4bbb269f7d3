"""dashboard/live.py: what crosses to the browser, and what the browser may ask for."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tests.widgets.dashboard.told_runs import started_run, step_event
from tunebook.events import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EvalEvent,
    LearningRateChanged,
    Notice,
    Request,
    SampleEvent,
    ScoreEvent,
)
from tunebook_widgets.dashboard.live import LiveView
from tunebook_widgets.dashboard.progress import COLUMNS, Progress
from tunebook_widgets.dashboard.wording import headline


@pytest.mark.parametrize("command", list(Command))
def test_only_what_ends_a_run_is_shown_as_a_stop(command):
    run = started_run(total=5)
    run.add(step_event(1, total=5))
    run.add(CommandReceived(step=1, command=command))
    assert ("Stop heard" in headline(run)) == (command in (Command.STOP, Command.DISCARD, Command.GO_BACK))


@pytest.mark.parametrize("steps", [1, 511, 512, 1300])
def test_the_traits_decode_to_the_steps_that_were_fed(steps):
    view, run = LiveView(), started_run(total=steps)
    events = [step_event(step, total=steps, loss=math.nan if step == 7 else 1 / step) for step in range(1, steps + 1)]
    for event in events:
        run.add(event)
        view.publish(run)
    decoded = np.frombuffer(view.sealed + view.recent, "<f4").reshape(-1, len(COLUMNS))
    told = [name for name in COLUMNS if name != "all_tokens_sec"]
    fed = np.array([[getattr(event, name) for name in told] for event in events], "f4")
    np.testing.assert_array_equal(decoded[:, : len(told)], fed)
    assert np.isnan(decoded[:, len(told) :]).all()  # this trainer counts trained tokens alone
    assert len(view.recent) <= 512 * 4 * len(COLUMNS)


def test_a_number_a_trainer_does_not_say_is_nan_in_its_column():
    view, run = LiveView(), started_run(total=1)
    run.add(step_event(1, total=1))
    view.publish(run)
    row = dict(zip(COLUMNS, np.frombuffer(view.recent, "<f4"), strict=True))
    assert math.isnan(row["active_gb"])
    assert row["peak_gb"] == 1.5


def test_all_tokens_of_a_step_are_counted_per_second_of_the_time_its_trained_ones_took():
    run = started_run(total=2)
    for step, (trained, every) in enumerate([(100, 400), (250, 1000)], start=1):  # since the run began
        run.add(step_event(step, total=2, tokens_sec=50.0, num_tokens=trained, total_tokens=every))
    # 100 trained tokens in 2 s beside 400 in all, then 150 in 3 s beside 600.
    np.testing.assert_allclose(run.column("all_tokens_sec"), [400 / 2, 600 / 3])


def test_the_state_is_strict_json_whatever_is_not_finite():
    view, run = LiveView(), started_run(total=3)
    run.add(EvalEvent(step=0, loss=math.nan, rows=1, tokens=1, seconds=1.0))
    run.add(step_event(1, total=3, loss=math.inf, grad_norm=math.nan))
    view.publish(run)
    json.dumps(view.state, allow_nan=False)
    record = json.loads(json.dumps(view.record, allow_nan=False))
    assert (record["evals"], record["best_eval"]) == ([[0, None]], None)


def test_the_best_held_out_loss_is_the_lowest_and_not_the_last():
    view, run = LiveView(), started_run(total=30)
    for step, loss in [(0, 2.0), (10, 1.25), (20, 1.5), (30, math.nan)]:
        run.add(EvalEvent(step=step, loss=loss, rows=4, tokens=40, seconds=1.0))
    view.publish(run)
    assert view.record["best_eval"] == [10, 1.25]


def test_a_loss_that_someone_asked_for_is_shown_and_is_not_the_best_for_the_run_goes_by_no_such():
    view, run = LiveView(), started_run(total=30)
    for step, loss, asked in [(0, 2.0, False), (7, 1.0, True), (10, 1.25, False)]:
        run.add(EvalEvent(step=step, loss=loss, rows=4, tokens=40, seconds=1.0, asked=asked))
    view.publish(run)
    assert view.record["evals"] == [[0, 2.0], [7, 1.0], [10, 1.25]]
    assert view.record["asked_evals"] == [7]
    assert view.record["best_eval"] == [10, 1.25]


def test_checkpoints_and_changes_of_the_learning_rate_are_marked_where_they_were():
    view, run = LiveView(), started_run(total=30)
    run.add(CheckpointSaved(step=5, path="step-00005"))
    run.add(LearningRateChanged(step=7, learning_rate=5e-5))
    view.publish(run)
    assert (view.record["checkpoints"], view.record["rates"]) == ([5], [[7, 5e-5]])
    assert run.learning_rate == 5e-5


def test_of_many_samples_evenly_many_are_sent_the_first_and_the_last_among_them():
    view, run = LiveView(), started_run(total=1000)
    for step in range(0, 1001, 10):
        for prompt in ("Why?", "Who?"):
            run.add(SampleEvent(step=step, prompt=prompt, text=f"after {step}", seconds=1.0))
    view.publish(run)
    steps = [step for step, prompt, _ in view.samples if prompt == "Why?"]
    assert (steps[0], steps[-1], len(steps)) == (0, 1000, 60)
    assert max(np.diff(steps)) <= 20


def test_only_what_can_be_asked_of_a_run_reaches_the_trainer():
    asked = []
    view = LiveView(asked.append)
    rates = [{"command": "learning_rate", "value": value} for value in (5e-5, -1, "fast", None)]
    commands = [{"command": name} for name in ("halt", "stop", "sample", "learning_rate")]
    for content in (*commands, {"stop": True}, "stop", {"command": "stop", "value": 3}, *rates):
        view._handle_custom_msg(content, [])  # ipywidgets' entry for a message from the browser
    assert asked == [Request(Command.STOP), Request(Command.SAMPLE), Request(Command.LEARNING_RATE, 5e-5)]


def test_only_what_a_run_can_do_is_offered_and_a_pause_can_be_ended():
    view, run = LiveView(lambda command: None), started_run(total=9)
    view.publish(run)
    assert view.state["offered"] == ["pause", "evaluate", "sample"]  # no folder to save in, no rate to go on from
    run.add(CommandReceived(step=0, command=Command.PAUSE))
    view.publish(run)
    assert view.state["offered"][0] == "resume"
    run.add(CommandReceived(step=0, command=Command.RESUME))
    view.publish(run)
    assert view.state["offered"][0] == "pause"
    saving = Progress()
    saving.add(replace(run.started, config={"output_dir": "runs", "learning_rate": 1e-4}, eval_rows=0))
    view.publish(saving)
    assert view.state["offered"] == ["pause", "sample", "save", "learning_rate"]
    examined = Progress()
    examined.add(replace(run.started, exam_rows=40))
    view.publish(examined)
    assert view.state["offered"] == ["pause", "evaluate", "exam", "sample"]


def test_what_was_asked_for_is_pending_until_it_is_done_or_said_to_be_impossible():
    run = started_run(total=9)
    done = {
        Command.EVALUATE: EvalEvent(step=1, loss=1.0, rows=1, tokens=1, seconds=1.0),
        Command.EXAM: ScoreEvent(step=1, scores={"right": 0.5}, rows=1, seconds=1.0, exam="ab"),
        Command.SAMPLE: SampleEvent(step=1, prompt="Why?", text="So.", seconds=1.0),
        Command.SAVE: CheckpointSaved(step=1, path="step-00001"),
        Command.LEARNING_RATE: LearningRateChanged(step=1, learning_rate=1e-5),
    }
    for command in done:
        run.add(CommandReceived(step=1, command=command))
    assert run.pending == set(done)
    for command, event in done.items():
        run.add(event)
        assert command not in run.pending
    run.add(CommandReceived(step=1, command=Command.SAVE))
    run.add(Notice(step=1, text="Asked to save, but step 1 is saved already."))
    assert not run.pending


@pytest.mark.parametrize(
    ("awaited", "has_trainer", "button"), [(True, True, "heard"), (False, True, "unheard"), (True, False, "absent")]
)
def test_the_stop_button_promises_only_what_can_be_kept(awaited, has_trainer, button):
    view = LiveView((lambda command: None) if has_trainer else None)
    view.publish(started_run(total=3, awaited=awaited))
    assert view.state["stop"] == button
