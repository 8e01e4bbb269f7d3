"""runs/hearing.py: what is asked from elsewhere reaches the run while it computes, and what it does is seen there."""

import time

from tests.runs.logged_events import STARTED, STEP
from tests.runs.written_run import soon
from tunebook.events import Command, CommandReceived, Request, Working
from tunebook.runs.controls import Controls
from tunebook.runs.hearing import Hearing
from tunebook.runs.lock import RunLock
from tunebook.runs.mailbox import ASKED_FOLDER, post, read_now

WORKING = Working(step=2, what="training", done=1, total=4)


def test_a_command_is_heard_while_the_run_is_deep_in_a_step_and_waits_to_be_done(tmp_path):
    controls = Controls()
    with Hearing(controls, tmp_path) as hearing:
        hearing(STARTED)
        hearing(STEP)
        hearing(WORKING)
        post(tmp_path, Request(Command.LEARNING_RATE, 5e-5))
        heard = [(1, Command.LEARNING_RATE, 5e-5)]
        assert soon(lambda: (now := read_now(tmp_path)) is not None and list(now.heard) == heard)
        now = read_now(tmp_path)
        assert now is not None
        assert (now.events, now.working) == (2, WORKING)
        assert not controls.stopping
        [acknowledged] = soon(lambda: list(controls.listen(1, None)))
        assert acknowledged == CommandReceived(step=1, command=Command.LEARNING_RATE, value=5e-5)
        hearing(acknowledged)
        assert soon(lambda: (now := read_now(tmp_path)) is not None and (now.events, list(now.heard)) == (3, []))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_command_is_a_notice_of_the_run(tmp_path):
    (tmp_path / ASKED_FOLDER).mkdir()
    (tmp_path / ASKED_FOLDER / "1764500000000000000-17-0123abcd.json").write_text('{"command": "format c:"}')
    controls = Controls()
    with Hearing(controls, tmp_path):
        [notice] = soon(lambda: list(controls.listen(4, None)))
    assert notice.step == 4
    assert "'format c:' is none of stop" in notice.text


def test_a_stop_that_was_meant_for_a_run_that_died_does_not_end_the_one_that_goes_on(tmp_path):
    post(tmp_path, Request(Command.STOP))
    time.sleep(0.05)  # clocks of file systems are no finer than that
    controls = Controls()
    with RunLock(tmp_path), Hearing(controls, tmp_path):
        [notice] = soon(lambda: list(controls.listen(0, None)))
        assert "before this run went on" in notice.text
        assert not controls.stopping
        post(tmp_path, Request(Command.STOP))
        assert soon(lambda: list(controls.listen(0, None)) and controls.stopping)


def test_a_run_whose_folder_is_gone_is_not_ended_and_heard_again_when_it_is_back(tmp_path):
    controls, folder = Controls(), tmp_path / "run-001"
    with Hearing(controls, folder) as hearing:
        hearing(STARTED)
        time.sleep(0.5)  # more than one look
        folder.mkdir()
        post(folder, Request(Command.SAVE))
        assert soon(lambda: list(controls.listen(0, None)))
