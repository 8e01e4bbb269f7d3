"""runs/attached.py: whoever holds a run by its folder knows all of it, is told what is new, and can ask for things."""

import asyncio
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from tests.runs.logged_events import ENDED, EVENTS, STARTED, STEP, STEPS
from tests.runs.written_run import Writer, soon
from tunebook import attach
from tunebook.events import CheckpointSaved, Command, CommandReceived, EndReason, RunEnded, Working
from tunebook.runs.attached import AttachedRun
from tunebook.runs.folder import event_log, rewind
from tunebook.runs.run_state import RunState

PAUSED = Working(step=2, what="paused", done=2, total=9)


@pytest.fixture
def writer(tmp_path):
    writer = Writer(tmp_path)
    yield writer
    writer.close()


def listening(run):
    heard = []
    run.subscribe(heard.append)
    return heard


def test_a_run_is_known_from_its_first_event_and_what_comes_is_told_once(writer, tmp_path):
    run = attach(tmp_path)
    assert (run.state, run.events) == (RunState.RUNNING, [])
    writer.tell(*EVENTS[:3])
    run.poll()
    heard = listening(run)
    assert run.events == EVENTS[:3]
    writer.tell(*EVENTS[3:])
    run.poll()
    run.poll()
    assert heard == EVENTS[3:]
    assert run.events == EVENTS
    assert repr(run) == f"The run in {tmp_path}: running, step 6."


@pytest.mark.parametrize(
    ("reason", "state"),
    {
        EndReason.FINISHED: "finished",
        EndReason.EARLY_STOPPED: "finished",
        EndReason.STOPPED: "stopped",
        EndReason.DISCARDED: "stopped",
        EndReason.INTERRUPTED: "stopped",
        EndReason.NOT_FINITE: "failed",
        EndReason.FAILED: "failed",
    }.items(),
)
def test_how_a_run_ended_is_its_state_its_message_and_its_result(tmp_path, reason, state):
    writer = Writer(tmp_path)
    writer.tell(*EVENTS, replace(ENDED, reason=reason, message="So it went."))
    writer.close()
    run = attach(tmp_path)
    assert (run.state, run.message) == (state, "So it went.")
    result = run.wait(timeout=0)
    assert (result.reason, [step.step for step in result.steps]) == (reason, [1, 2, 3, 4, 5, 6])
    assert result.run_folder == tmp_path
    with pytest.raises(RuntimeError, match=rf"Nobody hears 'stop': The run in .*: {state}, step 6. So it went."):
        run.stop()


def test_a_run_whose_process_died_is_over_and_its_last_words_say_how_to_go_on(tmp_path):
    writer = Writer(tmp_path)
    run = attach(tmp_path)
    heard = listening(run)
    writer.tell(*EVENTS, CheckpointSaved(step=5, path="checkpoints/step-5"))
    run.poll()
    assert run.state is RunState.RUNNING
    writer.close(killed=True)
    run.poll()
    run.poll()
    assert run.state is RunState.DIED
    assert isinstance(heard[-1], RunEnded)
    assert (heard[-1].step, heard[-1].reason) == (6, EndReason.INTERRUPTED)
    assert heard[:-1] == run.events[:-1] == [*EVENTS, CheckpointSaved(step=5, path="checkpoints/step-5")]
    assert f"train(resume_from_checkpoint='{tmp_path}') goes on from step 5" in run.message
    assert run.wait(timeout=0).message == run.message


def test_a_run_that_goes_on_after_its_death_is_told_from_its_new_start_and_known_as_a_whole(tmp_path):
    Writer(tmp_path).close(killed=True)
    writer = Writer(tmp_path)
    writer.tell(*EVENTS)
    run = attach(tmp_path)
    heard = listening(run)
    writer.close(killed=True)
    run.poll()
    assert run.state is RunState.DIED
    heard.clear()
    writer = Writer(tmp_path)
    rewind(tmp_path, 3)
    run.poll()
    assert (run.state, heard) == (RunState.RUNNING, [])
    writer.tell(replace(STARTED, step=3), *STEPS[3:])
    run.poll()
    writer.close()
    assert heard == [replace(STARTED, step=3), *STEPS[3:]]
    assert [event.step for event in run.events if type(event) is type(STEP)] == [1, 2, 3, 4, 5, 6]


def test_what_is_asked_is_heard_at_once_by_every_viewer_and_told_once(writer, tmp_path):
    writer.tell(*EVENTS[:3])
    viewers = [AttachedRun(tmp_path), AttachedRun(tmp_path)]
    heard = [listening(run) for run in viewers]
    viewers[0].send("learning_rate", 5e-5)
    for run, told in zip(viewers, heard, strict=True):  # the run is deep in a step and tells of nothing
        assert soon(lambda run=run, told=told: run.poll() or told)
        assert told == [CommandReceived(step=2, command=Command.LEARNING_RATE, value=5e-5)]
    writer.acknowledge(step=2)
    writer.tell(STEPS[2])
    time.sleep(0.5)
    for run, told in zip(viewers, heard, strict=True):
        run.poll()
        assert told[1:] == [STEPS[2]]
        assert [event for event in run.events if isinstance(event, CommandReceived)] == told[:1]


def test_a_command_that_was_done_before_anyone_looked_is_not_said_to_be_waiting(writer, tmp_path):
    writer.tell(*EVENTS[:3])
    run = attach(tmp_path)
    heard = listening(run)
    run.send("save")
    writer.acknowledge(step=2)
    writer.tell(CheckpointSaved(step=2, path="checkpoints/step-2"))
    for _ in range(5):
        run.poll()
        time.sleep(0.1)
    assert [type(event) for event in heard] == [CommandReceived, CheckpointSaved]


def test_what_is_being_computed_is_told_while_the_log_says_no_more_and_not_when_it_does(writer, tmp_path):
    writer.tell(*EVENTS[:3])
    run = attach(tmp_path)
    heard = listening(run)
    writer.hearing(PAUSED)
    assert soon(lambda: run.poll() or heard)
    assert (heard, PAUSED in run.events) == ([PAUSED], False)
    writer.keep(STEPS[2])  # in the log, and what the moment is was written before
    run.poll()
    run.poll()
    assert heard[1:] == [STEPS[2]]


def test_a_listener_that_raises_is_switched_off_and_the_others_hear_on(writer, tmp_path):
    run = attach(tmp_path)

    def raises(event):
        raise ZeroDivisionError(event.step)

    run.subscribe(raises)
    called = []
    run.add_step_callback(lambda *values: called.append(values))
    writer.tell(*EVENTS[:3])
    with pytest.warns(UserWarning, match="raised ZeroDivisionError: 0. It is switched off; the run goes on"):
        run.poll()
    assert [values[:3] for values in called] == [(1, 9, 1.0), (2, 9, 0.5)]
    assert all(len(values) == 9 for values in called)


def test_it_can_be_awaited_beside_other_work_and_its_listeners_hear_on_the_loop_thread(writer, tmp_path):
    writer.tell(*EVENTS[:2])
    threads, ticks = set(), []

    async def watch():
        run = attach(tmp_path)
        run.subscribe(lambda event: threads.add(threading.current_thread()))

        async def train():
            for event in [*EVENTS[2:], ENDED]:
                await asyncio.sleep(0.02)
                ticks.append(event)
                writer.tell(event)

        training = asyncio.ensure_future(train())
        result = await run
        await training
        return result

    result = asyncio.run(watch())
    assert result.reason is ENDED.reason
    assert threads == {threading.main_thread()}


def test_without_anyone_waiting_an_event_loop_takes_in_what_comes(writer, tmp_path):
    async def live():
        run = attach(tmp_path)
        heard = listening(run)
        writer.tell(*EVENTS)
        deadline = time.monotonic() + 20
        while heard != EVENTS and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return heard

    assert asyncio.run(live()) == EVENTS


def test_waiting_can_be_given_up_and_the_run_goes_on(writer, tmp_path):
    writer.tell(*EVENTS)
    with pytest.raises(TimeoutError, match=r"running, step 6\. It goes on"):
        attach(tmp_path).wait(timeout=0.3)
    assert not list(writer.controls.listen(6, None))


def test_a_run_is_named_by_its_folder_its_log_or_the_folder_of_all_runs(tmp_path):
    for name in ("run-001", "run-002"):
        (tmp_path / name).mkdir()
        event_log(tmp_path / name)(STARTED)
    runs = [attach(tmp_path / "run-002"), attach(tmp_path / "run-002" / "events.jsonl"), attach(str(tmp_path))]
    assert runs[0] is runs[1] is runs[2]
    with pytest.raises(FileNotFoundError, match=r"There is no run at .*run-003. Pass a run folder"):
        attach(tmp_path / "run-003")


def test_no_mlx_is_needed_to_watch(writer, tmp_path):
    writer.tell(*EVENTS, ENDED)
    code = (
        "import sys\n"
        "for name in ('mlx', 'mlx.core', 'mlx_lm', 'torch', 'transformers'): sys.modules[name] = None\n"
        f"import tunebook; print(repr(tunebook.attach({str(tmp_path)!r}).wait()))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert printed.stdout == "done\n", printed.stderr
