"""runs/attached.py on a run that is looked after: it is wanted, its pauses and its end are told as those said it."""

import fcntl
import os
import time
from dataclasses import asdict, replace

import pytest

from tests.runs.logged_events import ENDED, EVENTS, STARTED, STEPS
from tests.runs.written_run import Writer
from tunebook import attach
from tunebook.events import EndReason, Notice, RunEnded
from tunebook.machine.sealed import sealed_json
from tunebook.runs.folder import STOP_FILE, rewind
from tunebook.runs.looked_after.state import LOCK, PROCESS, STATE, State, is_supervised
from tunebook.runs.looked_after.wanted import is_wanted

KILLED = "Its process was killed (SIGKILL)."
FAILED = replace(ENDED, reason=EndReason.FAILED, message="Failed after step 6 of 9 (RankLost: rank 1).")


class Supervisor:
    """One that says what the test has it say."""

    def __init__(self, folder):
        self._folder = folder / PROCESS
        self._folder.mkdir()
        self._handle = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def say(self, **said):
        (self._folder / STATE).write_text(sealed_json(asdict(State(**said))))

    def pause(self, cause):
        self.say(state="pausing", begun=1, said=cause, again_at=time.time() + 30)

    def close(self):
        os.close(self._handle)


@pytest.fixture
def supervisor(tmp_path):
    return Supervisor(tmp_path)


def heard_of(run):
    heard = []
    run.subscribe(heard.append)
    return heard


def test_a_run_that_goes_on_is_wanted_by_who_attached_to_it_until_it_is_over(tmp_path, supervisor):
    supervisor.say(state="waiting")
    assert not is_wanted(tmp_path)
    run = attach(tmp_path)
    assert (run.state, is_wanted(tmp_path)) == ("waiting", True)
    supervisor.say(state="ended", said="It was taken out of the queue before it began.")
    supervisor.close()
    run.poll()
    assert (run.state, is_wanted(tmp_path), is_supervised(tmp_path)) == ("stopped", False, False)
    with pytest.raises(RuntimeError, match="taken out of the queue"):
        run.wait(timeout=1)


def test_a_run_that_is_over_and_one_of_a_kernel_are_not_wanted(tmp_path):
    for name in ("of a kernel", "over"):
        (tmp_path / name).mkdir()
    supervisor = Supervisor(tmp_path / "over")
    supervisor.say(state="ended", ended_well=True)
    supervisor.close()
    writer = Writer(tmp_path / "of a kernel")
    writer.tell(STARTED)
    assert attach(tmp_path / "of a kernel").state == "running"
    attach(tmp_path / "over")
    writer.close()
    assert not any(is_wanted(tmp_path / name) for name in ("of a kernel", "over"))


def test_before_it_begins_again_it_says_so_with_the_cause_and_can_be_stopped(tmp_path, supervisor):
    supervisor.say(state="running", begun=1)
    writer = Writer(tmp_path)
    writer.tell(*EVENTS)
    run = attach(tmp_path)
    heard = heard_of(run)
    assert run.state == "running"
    writer.close(killed=True)
    supervisor.pause(KILLED)
    run.poll()
    run.poll()
    assert (run.state, [type(event) for event in heard]) == ("pausing", [Notice])
    for said in (heard[0].text, run.message):
        assert said.startswith("It begins again in ")
        assert said.endswith(f" s. {KILLED}")
    assert run.events == EVENTS
    with pytest.raises(RuntimeError, match=r"Nobody hears 'pause': .* pausing, step 6\. It begins again"):
        run.send("pause")
    run.stop()
    assert (tmp_path / STOP_FILE).is_file()
    supervisor.close()


def test_a_failure_is_the_end_only_when_it_is_not_begun_again(tmp_path, supervisor):
    supervisor.say(state="running", begun=1)
    writer = Writer(tmp_path)
    run = attach(tmp_path)
    heard = heard_of(run)
    writer.tell(*EVENTS, FAILED)
    writer.close()
    run.poll()
    assert (run.state, heard) == ("running", EVENTS)
    supervisor.pause("Rank 1 went down.")
    run.poll()
    assert (run.state, run._result(), type(heard[-1])) == ("pausing", None, Notice)
    supervisor.say(state="running", begun=2, said="Rank 1 went down.")
    writer = Writer(tmp_path)
    rewind(tmp_path, 3)
    writer.tell(replace(STARTED, step=3), *STEPS[3:], FAILED)
    writer.close()
    run.poll()
    assert not [event for event in heard if isinstance(event, RunEnded)]
    supervisor.say(state="ended", begun=2, said="Rank 1 went down. It was begun again 1 times.")
    supervisor.close()
    assert run.wait(timeout=5).reason is EndReason.FAILED
    assert [event for event in heard if isinstance(event, RunEnded)] == [FAILED]
    assert (run.state, run.message) == ("failed", "Rank 1 went down. It was begun again 1 times.")


def test_what_was_said_of_an_end_is_not_said_of_one_that_came_later(tmp_path, supervisor):
    supervisor.say(state="ended", begun=1, said=KILLED)
    supervisor.close()
    time.sleep(0.05)
    writer = Writer(tmp_path)  # from a shell, without anyone to look after it
    writer.tell(*EVENTS, FAILED)
    writer.close()
    run = attach(tmp_path)
    assert (run.state, run.message) == ("failed", FAILED.message)
