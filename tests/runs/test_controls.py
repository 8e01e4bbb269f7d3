"""What is asked of a run is acknowledged in order, and stands ready until it is taken up."""

import pytest

from tunebook.events import Command, CommandReceived, EndReason, Request
from tunebook.runs.controls import Controls


def asked(*commands):
    controls = Controls()
    for command in commands:
        controls.ask(Request(command))
    return controls


def test_requests_are_acknowledged_once_each_in_the_order_they_came():
    controls = asked(Command.SAVE, Command.PAUSE)
    controls.ask(Request(Command.LEARNING_RATE, 1e-3))
    assert list(controls.listen(7, None)) == [
        CommandReceived(step=7, command=Command.SAVE),
        CommandReceived(step=7, command=Command.PAUSE),
        CommandReceived(step=7, command=Command.LEARNING_RATE, value=1e-3),
    ]
    assert list(controls.listen(7, None)) == []


def test_what_is_asked_for_by_someone_told_of_a_command_is_heard_at_once():
    controls = asked(Command.SAVE)
    listening = controls.listen(0, None)
    next(listening)
    controls.ask(Request(Command.STOP))
    assert [event.command for event in listening] == [Command.STOP]
    assert controls.stopping


def test_what_was_asked_for_twice_is_done_once_and_a_checkpoint_last():
    controls = asked(Command.SAVE, Command.SAMPLE, Command.EVALUATE, Command.SAVE)
    assert controls.take_commands() == []  # nobody has listened
    list(controls.listen(0, None))
    assert controls.take_commands() == [Command.EVALUATE, Command.SAMPLE, Command.SAVE]
    assert controls.take_commands() == []


def test_of_two_learning_rates_the_later_is_taken_up_and_once():
    controls = Controls()
    for rate in (1e-3, 5e-4):
        controls.ask(Request(Command.LEARNING_RATE, rate))
    list(controls.listen(0, None))
    assert [controls.take_learning_rate(), controls.take_learning_rate()] == [5e-4, None]


@pytest.mark.parametrize("commands", [["stop", "discard"], ["discard", "stop"]], ids="-".join)
def test_a_stop_does_not_take_back_a_discard(commands):
    controls = asked(*map(Command, commands))
    list(controls.listen(0, None))
    assert controls.stopping
    assert controls.end_reason is EndReason.DISCARDED


def made(stop, kind):
    match kind:
        case "empty file":
            stop.touch()
        case "empty folder":
            stop.mkdir()
        case "file with notes":
            stop.write_text("why I stopped: the loss is flat")
        case "folder with notes":
            stop.mkdir()
            (stop / "notes.txt").write_text("mine")
        case "link to a file":
            (stop.parent / "elsewhere").touch()
            stop.symlink_to(stop.parent / "elsewhere")
        case "link to nothing":
            stop.symlink_to(stop.parent / "nowhere")


@pytest.mark.parametrize("kind", ["empty file", "empty folder"])
def test_an_empty_stop_is_heard_once_and_taken_away(tmp_path, kind):
    made(tmp_path / "STOP", kind)
    controls = Controls()
    heard = [event for _ in range(3) for event in controls.listen(2, tmp_path)]
    assert heard == [CommandReceived(step=2, command=Command.STOP)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file with notes", "folder with notes", "link to a file"])
def test_a_stop_that_is_somebodys_is_heard_once_and_stays_and_that_is_said(tmp_path, kind):
    made(tmp_path / "STOP", kind)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    controls = Controls()
    notice, *heard = [event for _ in range(3) for event in controls.listen(2, tmp_path)]
    assert heard == [CommandReceived(step=2, command=Command.STOP)]
    assert f"{tmp_path / 'STOP'} ends the run, and stays" in notice.text
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (tmp_path / "STOP").is_symlink() == (kind == "link to a file")
    assert list(Controls().listen(2, tmp_path))[1:] == heard  # it would stop the next as well


def test_a_link_to_nothing_asks_for_nothing(tmp_path):
    made(tmp_path / "STOP", "link to nothing")
    assert list(Controls().listen(2, tmp_path)) == []
    assert (tmp_path / "STOP").is_symlink()
