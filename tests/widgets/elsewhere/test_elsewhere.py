"""A run in another process, in the dashboard: all of it from its first step, buttons that are heard, and its end."""

from dataclasses import replace

import numpy as np
import pytest

from tests.browser.rehearsal import Rehearsal
from tests.runs.written_run import Writer, soon
from tests.widgets.dashboard.told_runs import rehearsed_run
from tunebook import attach
from tunebook.events import Command, CommandReceived, Event, Request, RunStarted, Working
from tunebook.runs.folder import rewind
from tunebook_widgets import Dashboard, compare
from tunebook_widgets.dashboard.live import state_of


@pytest.fixture
def events() -> list[Event]:
    """What a run of 12 steps told, as its log has it."""
    trainer = Rehearsal(steps=12, seconds=0, eval_steps=4)
    rehearsed_run(trainer)
    told = [event for event in trainer.events if not isinstance(event, Working)]
    return [replace(event, awaited=False) if isinstance(event, RunStarted) else event for event in told]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_UI", "text")
    (tmp_path / "run-001").mkdir()
    return tmp_path / "run-001"


def test_a_dashboard_of_a_folder_shows_a_run_that_goes_on_from_its_first_step_and_then_what_comes(folder, events):
    writer = Writer(folder)
    writer.tell(*events[:9])
    dashboard = Dashboard(folder)
    seen = dashboard._run.steps
    writer.tell(*events[9:])
    writer.close()
    attach(folder).poll()
    whole = rehearsed_run(Rehearsal(steps=12, seconds=0, eval_steps=4))
    assert 0 < seen < 12
    np.testing.assert_array_equal(dashboard._run.column("loss"), whole.column("loss"))
    assert [event.step for event in dashboard._run.evals] == [0, 4, 8, 12]
    assert dashboard._run.ended == events[-1]


def test_its_buttons_are_heard_whatever_its_own_process_hears(folder, events):
    writer = Writer(folder)
    writer.tell(*events[:9])
    dashboard = Dashboard(run := attach(folder))
    assert state_of(dashboard._run, can_send=True)["stop"] == "heard"
    dashboard._ask(Request(Command.PAUSE))
    assert soon(lambda: run.poll() or dashboard._run.paused)
    [heard] = writer.acknowledge(step=3)
    assert heard == CommandReceived(step=3, command=Command.PAUSE)
    writer.close(killed=True)
    dashboard._ask(Request(Command.STOP))  # nobody is there any more, which the run tells by itself
    assert dashboard._run.ended is not None
    assert "gone without a word" in dashboard._run.ended.message


def test_a_run_that_is_resumed_is_shown_as_one_curve(folder, events):
    writer = Writer(folder)
    writer.tell(*events[:-1])
    dashboard = Dashboard(run := attach(folder))
    writer.close(killed=True)
    run.poll()
    died = dashboard._run.ended
    writer = Writer(folder)
    rewind(folder, 6)
    started, *later = [event for event in events if isinstance(event, RunStarted) or event.step > 6]
    writer.tell(replace(started, step=6), *later)
    run.poll()
    writer.close()
    assert died is not None
    assert dashboard._run.column("step").tolist() == list(range(1, 13))
    assert dashboard._run.ended == events[-1]


def test_a_run_that_is_to_come_is_waited_for(folder, events, capsys):
    dashboard = Dashboard(folder)
    dashboard.show()
    assert capsys.readouterr().out == ""
    writer = Writer(folder)
    writer.tell(*events)
    writer.close()
    attach(folder).poll()
    printed = capsys.readouterr().out
    assert printed.startswith("Training example/rehearsal-135M: 12 steps, 400 rows.")
    assert "Finished all 12 steps" in printed.splitlines()[-1]


def test_a_handle_of_a_run_that_is_over_shows_what_is_left_of_it_and_can_be_compared(folder, events, capsys):
    writer = Writer(folder)
    writer.tell(*events)
    writer.close()
    Dashboard(attach(folder)).show()
    Dashboard(folder).show()
    first, second = capsys.readouterr().out.split("Finished all 12 steps")[1:]
    assert first.split()[:4] == second.split()[:4]
    assert "12 of 12" in repr(compare([attach(folder), folder], names=["a", "b"]))


def test_of_two_dashboards_on_one_run_the_newest_shows_it(folder, events, capsys):
    writer = Writer(folder)
    writer.tell(*events[:3])
    boards = [Dashboard(folder), Dashboard(folder)]
    writer.tell(*events[3:])
    attach(folder).poll()
    writer.close()
    assert [board._run.ended is not None for board in boards] == [False, True]
    assert capsys.readouterr().out.count("Finished all 12 steps") == 1
