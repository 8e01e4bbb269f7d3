"""The dashboard without a browser: what crosses to it, how often, what it leaves behind, and where it shows itself."""

import base64
import io
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.browser import rehearsal
from tests.browser.rehearsal import Rehearsal
from tunebook.events import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EndReason,
    EvalEvent,
    Event,
    LearningRateChanged,
    Notice,
    Request,
    RunEnded,
    RunStarted,
    SampleEvent,
    StepEvent,
    Working,
)
from tunebook_widgets import Dashboard
from tunebook_widgets.dashboard.freeze import frozen_picture, frozen_table
from tunebook_widgets.dashboard.live import LiveView
from tunebook_widgets.dashboard.notebook import NotebookScreen
from tunebook_widgets.dashboard.picture import debiased_ema
from tunebook_widgets.dashboard.progress import COLUMNS, Progress
from tunebook_widgets.dashboard.terminal import TerminalScreen
from tunebook_widgets.dashboard.throttle import Throttle
from tunebook_widgets.dashboard.wording import about, duration, headline

WIDGET = "application/vnd.jupyter.widget-view+json"


NOTICE = Notice(step=1, text="odd")
WORKING = Working(step=1, what="training", done=1, total=2)

# ---- what crosses to the browser


@pytest.mark.parametrize("command", list(Command))
def test_only_what_ends_a_run_is_shown_as_a_stop(command):
    run = _started(total=5)
    run.add(_step(1, total=5))
    run.add(CommandReceived(step=1, command=command))
    assert ("Stop heard" in headline(run)) == (command in (Command.STOP, Command.DISCARD))


@pytest.mark.parametrize("steps", [1, 511, 512, 1300])
def test_the_traits_decode_to_the_steps_that_were_fed(steps):
    view, run = LiveView(), _started(total=steps)
    events = [_step(step, total=steps, loss=math.nan if step == 7 else 1 / step) for step in range(1, steps + 1)]
    for event in events:
        run.add(event)
        view.publish(run)
    decoded = np.frombuffer(view.sealed + view.recent, "<f4").reshape(-1, len(COLUMNS))
    fed = np.array([[getattr(event, name) for name in COLUMNS] for event in events], "f4")
    np.testing.assert_array_equal(decoded, fed)
    assert len(view.recent) <= 512 * 4 * len(COLUMNS)


def test_a_number_a_trainer_does_not_say_is_nan_in_its_column():
    view, run = LiveView(), _started(total=1)
    run.add(_step(1, total=1))
    view.publish(run)
    row = dict(zip(COLUMNS, np.frombuffer(view.recent, "<f4"), strict=True))
    assert math.isnan(row["active_gb"])
    assert row["peak_gb"] == 1.5


def test_the_state_is_strict_json_whatever_is_not_finite():
    view, run = LiveView(), _started(total=3)
    run.add(EvalEvent(step=0, loss=math.nan, rows=1, tokens=1, seconds=1.0))
    run.add(_step(1, total=3, loss=math.inf, grad_norm=math.nan))
    view.publish(run)
    json.dumps(view.state, allow_nan=False)
    record = json.loads(json.dumps(view.record, allow_nan=False))
    assert (record["evals"], record["best_eval"]) == ([[0, None]], None)


def test_the_best_held_out_loss_is_the_lowest_and_not_the_last():
    view, run = LiveView(), _started(total=30)
    for step, loss in [(0, 2.0), (10, 1.25), (20, 1.5), (30, math.nan)]:
        run.add(EvalEvent(step=step, loss=loss, rows=4, tokens=40, seconds=1.0))
    view.publish(run)
    assert view.record["best_eval"] == [10, 1.25]


def test_checkpoints_and_changes_of_the_learning_rate_are_marked_where_they_were():
    view, run = LiveView(), _started(total=30)
    run.add(CheckpointSaved(step=5, path="step-00005"))
    run.add(LearningRateChanged(step=7, learning_rate=5e-5))
    view.publish(run)
    assert (view.record["checkpoints"], view.record["rates"]) == ([5], [[7, 5e-5]])
    assert run.learning_rate == 5e-5


def test_of_many_samples_evenly_many_are_sent_the_first_and_the_last_among_them():
    view, run = LiveView(), _started(total=1000)
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
    view, run = LiveView(lambda command: None), _started(total=9)
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


def test_what_was_asked_for_is_pending_until_it_is_done_or_said_to_be_impossible():
    run = _started(total=9)
    done = {
        Command.EVALUATE: EvalEvent(step=1, loss=1.0, rows=1, tokens=1, seconds=1.0),
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
    view.publish(_started(total=3, awaited=awaited))
    assert view.state["stop"] == button


# ---- how often


def test_no_second_holds_more_than_four_messages_however_fast_the_steps():
    throttle = Throttle()
    kinds = [_step(1, total=9), WORKING, _step(2, total=9), NOTICE, WORKING]
    sent = [now for i, now in enumerate(np.arange(0, 20, 0.003)) if throttle.allows(kinds[i % len(kinds)], now)]
    in_a_second = [sum(start <= other < start + 1 for other in sent) for start in sent]
    assert max(in_a_second) == 4
    assert len(sent) >= 4 * 19


def test_fast_steps_are_spread_over_the_second():
    throttle = Throttle()
    sent = [now for now in np.arange(0, 20, 0.01) if throttle.allows(_step(1, total=9), now)]
    assert np.diff(sent).max() < 0.3


def test_with_slow_steps_nothing_is_held_back():
    throttle = Throttle()
    for minute in range(
        5
    ):  # the last micro-batch, a notice, the step and its evaluation, all within a tenth of a second
        assert throttle.allows(WORKING, 60 * minute)
        assert throttle.allows(NOTICE, 60 * minute + 0.03)
        assert throttle.allows(_step(1, total=9), 60 * minute + 0.06)
        assert throttle.allows(EvalEvent(step=1, loss=1.0, rows=1, tokens=1, seconds=1.0), 60 * minute + 0.1)


def test_a_step_costs_less_than_a_millisecond_with_ten_thousand_behind_it():
    screen, run = NotebookScreen("widget", on_request=lambda request: None), _started(total=20_000)
    screen.begin(run)
    for step in range(1, 10_001):
        run.add(_step(step, total=20_000))
    messages, steps, began = [], 1000, time.perf_counter()
    assert screen._view is not None
    screen._view.observe(lambda change: messages.append(change.name), "state")
    spent = 0.0
    for step in range(10_001, 10_001 + steps):
        event, start = _step(step, total=20_000), time.thread_time()  # other processes share the cores
        run.add(event)
        screen.update(run, event)
        spent += time.thread_time() - start
        time.sleep(0.001)
    assert 2 <= len(messages) <= 4 * (time.perf_counter() - began) + 4
    assert spent / steps < 0.001


def test_dear_messages_are_sent_so_rarely_that_they_take_a_hundredth_of_the_time():
    throttle, cost, sent = Throttle(), 0.05, 0
    for now in np.arange(0, 200, 0.05):
        if throttle.allows(_step(1, total=9), now):
            throttle.took(cost)
            sent += 1
    assert 0.008 <= sent * cost / 200 <= 0.011


# ---- the words


def test_the_time_left_is_the_median_of_recent_steps_times_the_steps_to_go():
    run, elapsed = _started(total=100), 30.0  # the first step compiles
    for step in range(1, 41):
        elapsed += 20.0 if step % 10 == 0 else 2.0 + step % 3  # every tenth is followed by an evaluation
        run.add(_step(step, total=100, elapsed=elapsed))
    recent = [20.0 if step % 10 == 0 else 2.0 + step % 3 for step in range(9, 41)]
    assert run.seconds_left == pytest.approx(60 * statistics.median(recent))


def test_no_time_left_is_claimed_before_a_second_step():
    run = _started(total=100)
    run.add(_step(1, total=100, elapsed=30.0))
    assert run.seconds_left is None
    assert headline(run) == "Step 1 of 100 · loss 1.500"


def test_the_headline_says_where_the_run_stands():
    run = _started(total=40)
    for step in range(1, 13):
        run.add(_step(step, total=40, elapsed=6.0 * step))
        if step == 10:
            run.add(EvalEvent(step=10, loss=1.91, rows=4, tokens=40, seconds=1.0))
    assert headline(run) == "Step 12 of 40 · loss 1.500 · about 3 min left · best held-out 1.910 at 10"


def test_a_run_is_not_called_paused_while_a_step_is_in_progress():
    run = _started(total=40)
    run.add(CommandReceived(step=0, command=Command.PAUSE))
    run.add(Working(step=1, what="training", done=1, total=2))
    assert headline(run) == "Pause heard before the first step · finishing what is in progress"
    run.add(_step(1, total=40))
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


# ---- what stays


def test_the_picture_is_a_png_at_twice_its_size_with_every_curve_in_it():
    run = _rehearsed(Rehearsal(steps=30, seconds=0, broken=(12, 13)))
    bundle, metadata = frozen_picture(run)
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    pixels = np.asarray(image.convert("RGB")).astype(int)
    shown = metadata["image/png"]
    assert image.size == (2 * shown["width"], 2 * shown["height"])
    assert set(bundle) == {"image/png", "text/plain"}
    # Loss, held-out, gradient norm, learning rate, speed, memory, and the band of what was not finite.
    drawn = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (156, 79, 140), (86, 101, 115), (138, 97, 0), (224, 167, 159)]
    for color in drawn:
        assert (np.abs(pixels - color).max(axis=-1) < 12).sum() > 300


def test_a_falling_loss_is_drawn_falling():
    run = _started(total=50)
    for step in range(1, 51):
        run.add(_step(step, total=50, loss=5.0 - 0.05 * step))
    run.add(_ended(50, 50))
    image = Image.open(io.BytesIO(base64.b64decode(frozen_picture(run)[0]["image/png"]))).convert("RGB")
    rows, columns = np.nonzero(np.abs(np.asarray(image).astype(int) - (0, 114, 178)).max(axis=-1) < 12)
    curve = (rows > 70) & (rows < 560)  # below the legend, above the other charts
    assert np.corrcoef(columns[curve], rows[curve])[0, 1] > 0.98  # rows count from the top


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_run_that_hardly_began_still_leaves_a_picture_and_a_table(steps):
    run = _started(total=9)
    for step in range(1, steps + 1):
        run.add(_step(step, total=9, loss=math.nan))
    run.add(_ended(steps, 9, EndReason.FAILED, "The GPU ran out of memory."))
    picture, _ = frozen_picture(run)
    table = _cells(frozen_table(run)["text/html"])
    assert Image.open(io.BytesIO(base64.b64decode(picture["image/png"]))).size == (1520, 1120)
    assert table["Steps"] == f"{steps} of 9 in 7.0 s"
    assert table["Ended"] == "The GPU ran out of memory."


def test_the_table_holds_the_numbers_of_the_run():
    run = _started(total=4, model="org/model")
    for step, (loss, held_out) in enumerate([(2.5, 2.25), (2.0, 1.75), (1.5, 1.25), (1.75, 1.5)], start=1):
        run.add(_step(step, total=4, loss=loss, tokens_sec=100.0 * step, num_tokens=700 * step))
        run.add(EvalEvent(step=step, loss=held_out, rows=4, tokens=40, seconds=1.0))
    run.add(_ended(4, 4))
    bundle = frozen_table(run)
    table = _cells(bundle["text/html"])
    assert table["Model"] == "org/model"
    assert table["Trained"] == "25 parameters (2.50 %)"
    assert table["Loss"] == "2.500 → 1.750"
    assert table["Held-out loss"] == "2.250 → 1.500, best 1.250 at step 3"
    assert table["Tokens"] == "2,800 trained, 250 per second"
    assert table["Peak memory"] == "1.50 GB"
    sentence = "Finished all 4 steps in 7.0 s · loss 2.500 → 1.750 · best held-out loss 1.250 at step 3."
    assert sentence in bundle["text/html"]
    assert bundle["text/plain"].splitlines()[0] == sentence


def test_markup_in_a_frozen_run_stays_text():
    attack = '<img src=x onerror=alert(1)> & "quoted" <script>alert(2)</script>'
    run = _started(total=1, model=attack)
    run.add(Notice(step=1, text=attack))
    run.add(SampleEvent(step=1, prompt=attack, text=attack, seconds=1.0))
    run.add(_step(1, total=1))
    run.add(_ended(1, 1, EndReason.FAILED, attack))
    page = _Page(frozen_table(run)["text/html"])
    assert page.tags <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert page.text.count(attack) == 5


@pytest.mark.parametrize("reason", EndReason)
def test_there_are_words_for_every_way_a_run_can_end(reason):
    run = _started(total=9)
    run.add(_step(3, total=9))
    run.add(_ended(3, 9, reason))
    sentence = frozen_table(run)["text/plain"].splitlines()[0]
    assert sentence.endswith(".")
    assert "9" in sentence


def test_a_saved_notebook_keeps_what_the_model_wrote_at_first_and_at_last():
    run = _started(total=4)
    for step in (0, 2, 4):
        for prompt in ("Why?", "Who?"):
            run.add(SampleEvent(step=step, prompt=prompt, text=f"{prompt} after {step}", seconds=1.0))
    run.add(_ended(4, 4))
    text = frozen_table(run)["text/plain"]
    assert [line for line in text.splitlines() if "→" in line] == [
        "step 0: 'Why?' → 'Why? after 0'",
        "step 4: 'Why?' → 'Why? after 4'",
        "step 0: 'Who?' → 'Who? after 0'",
        "step 4: 'Who?' → 'Who? after 4'",
    ]


def test_only_the_last_notices_are_kept_and_the_others_counted():
    run = _started(total=1)
    for step in range(50):
        run.add(Notice(step=step, text="odd"))
    run.add(_ended(0, 1))
    view = LiveView()
    view.publish(run)
    html = frozen_table(run)["text/html"]
    assert html.count("<li>") == 21
    assert "30 earlier notices" in html
    assert (len(view.record["notices"]), view.record["hidden_notices"]) == (20, 30)


def test_the_smoothed_loss_is_the_weighted_mean_of_what_was_seen():
    values = np.array([3.0, 2.0, math.nan, 4.0, 1.0])
    smooth = debiased_ema(values, 0.8)
    seen = [(3.0,), (3.0, 2.0), None, (3.0, 2.0, 4.0), (3.0, 2.0, 4.0, 1.0)]
    for got, past in zip(smooth, seen, strict=True):
        if past is None:
            assert math.isnan(got)
        else:
            weights = [0.8**age for age in reversed(range(len(past)))]
            assert got == pytest.approx(np.average(past, weights=weights))


# ---- where it shows itself


@pytest.mark.parametrize("ui", [None, "widget"])
def test_an_executed_notebook_keeps_the_picture_and_the_table_and_no_widget(tmp_path, monkeypatch, ui):
    monkeypatch.delenv("TUNEBOOK_UI", raising=False)
    if ui:
        monkeypatch.setenv("TUNEBOOK_UI", ui)
    notebook = _executed(
        tmp_path,
        "from rehearsal import Rehearsal\nfrom tunebook_widgets import Dashboard\n"
        "trainer = Rehearsal(steps=12, seconds=0.01, eval_steps=6)\nDashboard(trainer)",
        "result = await trainer.train_async()",
    )
    upper, lower = notebook.cells[0].outputs
    assert set(upper.data) == {"image/png", "text/plain"}
    assert _cells(lower.data["text/html"])["Steps"].startswith("12 of 12 in ")
    assert notebook.cells[1].outputs == []
    assert WIDGET not in json.dumps(notebook.cells)
    assert ("widgets" in notebook.metadata) == (ui == "widget")  # asked for in so many words, its state is recorded


def test_a_dashboard_nobody_showed_appears_in_the_cell_that_trains(tmp_path, monkeypatch):
    monkeypatch.delenv("TUNEBOOK_UI", raising=False)
    notebook = _executed(
        tmp_path,
        "from rehearsal import Rehearsal\nfrom tunebook_widgets import Dashboard\n"
        "trainer = Rehearsal(steps=2, seconds=0)\ndashboard = Dashboard(trainer)",
        "trainer.train();",
        "Dashboard(trainer).show()\ntrainer.train();",  # the newest dashboard shows the trainer, and it alone
        "dashboard",
    )
    kinds = [[sorted(output.data) for output in cell.outputs] for cell in notebook.cells]
    frozen = [["image/png", "text/plain"], ["text/html", "text/plain"]]
    assert kinds == [[], frozen, frozen, frozen]


def test_a_script_prints_a_line_a_second_and_every_rare_event(tmp_path):
    code = (
        "from tests.browser.rehearsal import Rehearsal\nfrom tunebook_widgets import Dashboard\n"
        "trainer = Rehearsal(steps=300, seconds=0.005, eval_steps=150, notice='A row was cut.')\n"
        "Dashboard(trainer).show()\ntrainer.train()"
    )
    printed = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    lines = printed.stdout.splitlines()
    steps = [line for line in lines if line.startswith("step") and "tok/s" in line]
    assert lines[0] == "Training example/rehearsal-135M: 300 steps, 400 rows."
    assert "step 0: A row was cut." in lines
    assert [line[:9] for line in lines if "held-out loss" in line][:3] == ["step 0: h", "step 150:", "step 300:"]
    assert 2 <= len(steps) <= 8
    assert steps[-1].startswith("step 300/300  loss 1.")
    assert lines[-1].startswith("Finished all 300 steps in ")
    assert printed.stderr == ""


def test_log_lines_are_a_second_apart():
    now, lines = [0.0], []
    screen, run = TerminalScreen(write=lines.append, clock=lambda: now[0]), _started(total=1000)
    for step in range(1, 1001):
        now[0] += 0.1
        event = _step(step, total=1000, elapsed=now[0])
        run.add(event)
        screen.update(run, event)
    seconds = [int(line.split("/")[0].removeprefix("step")) / 10 for line in lines]
    assert min(np.diff(seconds[:-1]).round(6)) >= 1.0
    assert seconds[-1] == 100.0


def test_off_says_nothing_at_all(monkeypatch, capsys):
    monkeypatch.setenv("TUNEBOOK_UI", "off")
    trainer = Rehearsal(steps=3, seconds=0)
    Dashboard(trainer).show()
    trainer.train()
    assert capsys.readouterr().out == ""


def test_an_unknown_form_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("TUNEBOOK_UI", "fancy")
    with pytest.raises(ValueError, match="TUNEBOOK_UI is 'fancy'; set it to one of widget, html, text, off"):
        Dashboard()


def test_only_the_newest_dashboard_of_a_trainer_prints(monkeypatch, capsys):
    monkeypatch.setenv("TUNEBOOK_UI", "text")
    trainer = Rehearsal(steps=3, seconds=0)
    Dashboard(trainer)
    Dashboard(trainer)
    trainer.train()
    assert capsys.readouterr().out.count("Training example/rehearsal-135M") == 1


def test_nine_arguments_are_enough_and_the_last_may_be_missing(monkeypatch, capsys):
    monkeypatch.setenv("TUNEBOOK_UI", "text")
    dashboard = Dashboard()
    for step in (1, 2, 3):
        dashboard.on_step(step, 3, 2.0 / step, 1e-4, 500.0, 1.5, 2.0 * step, 100 * step)
    out = capsys.readouterr().out
    assert "step 3/3  loss 0.667  lr 1.00e-04  500 tok/s  1.50 GB  6.0 s" in out
    assert out.splitlines()[-1] == "Finished all 3 steps in 6.0 s · loss 2.000 → 0.667."


def test_steps_that_begin_again_are_a_new_run(monkeypatch, capsys):
    monkeypatch.setenv("TUNEBOOK_UI", "text")
    dashboard = Dashboard()
    for step in (1, 2, 1, 2, 3):
        dashboard.on_step(step, 3, 1.0, 1e-4, 500.0, 1.5, 2.0 * step, 100 * step, 0.5)
    verdicts = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("step")]
    assert verdicts == [
        "Stopped after step 2 of 3 in 4.0 s · loss 1.000 → 1.000.",
        "Finished all 3 steps in 6.0 s · loss 1.000 → 1.000.",
    ]


def test_what_is_being_computed_is_said_until_it_is_done():
    run = _started(total=9)
    run.add(Working(step=0, what="evaluating", done=3, total=12))
    assert headline(run) == "Measuring the held-out loss before training · batch 3 of 12"
    run.add(EvalEvent(step=0, loss=2.5, rows=4, tokens=40, seconds=1.0))
    assert headline(run) == "Held-out loss before training: 2.500 · the first step is being computed"


def _started(*, total: int, awaited: bool = True, model: str = "example/model") -> Progress:
    run = Progress()
    run.add(
        RunStarted(
            total_steps=total,
            model=model,
            trainable_parameters=25,
            total_parameters=1000,
            train_rows=8,
            eval_rows=4,
            awaited=awaited,
            config={"max_grad_norm": 1.0},
        )
    )
    return run


def _step(step: int, *, total: int, loss: float = 1.5, elapsed: float | None = None, **values: Any) -> StepEvent:
    fields = {"lr": 1e-4, "tokens_sec": 500.0, "peak_gb": 1.5, "num_tokens": 100 * step, "grad_norm": 0.5} | values
    return StepEvent(
        step=step, total_steps=total, loss=loss, elapsed=2.0 * step if elapsed is None else elapsed, **fields
    )


def _ended(step: int, total: int, reason: EndReason = EndReason.FINISHED, message: str = "") -> RunEnded:
    return RunEnded(step=step, total_steps=total, reason=reason, message=message, elapsed=7.0)


def _rehearsed(trainer: Rehearsal) -> Progress:
    run = Progress()
    listen: Callable[[Event], None] = run.add
    trainer.subscribe(listen)
    trainer.train()
    return run


def _executed(folder: Path, *cells: str) -> nbformat.NotebookNode:
    """The notebook of these cells, run as nbconvert, nbmake and papermill run one."""
    (folder / "rehearsal.py").write_text(Path(rehearsal.__file__).read_text())
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}})
    return client.execute()


class _Page(HTMLParser):
    """The tags and the text of a piece of HTML, and the cells of its tables."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.headings: list[str] = []
        self.values: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.add(tag)
        self._target = {"th": self.headings, "td": self.values}.get(tag)
        if self._target is not None:
            self._target.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._target is not None:
            self._target[-1] += data


def _cells(html: str) -> dict[str, str]:
    page = _Page(html.partition("</table>")[0])
    return dict(zip(page.headings, page.values, strict=True))
