"""watch.py: a process without a sign of life is woken once and then ended; one that computes nothing is too."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from tunebook.jobs.layout import ALIVE, Order
from tunebook.jobs.life import Beat
from tunebook.jobs.processes import Child
from tunebook.jobs.watch import watch
from tunebook.runs.looked_after.state import PROCESS


@pytest.fixture
def child(tmp_path):
    """A process that lives and says nothing."""
    (tmp_path / PROCESS).mkdir()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def beats(folder, child, number, events=1):
    beat = Beat(child.pid, number, events=events, step=3, began=True)
    (folder / PROCESS / ALIVE).write_text(json.dumps(asdict(beat)))


def alone(child):
    return [Child(child, Path("child.err"))]


@contextmanager
def meanwhile(look):
    """`look` called again and again by a thread."""
    over = threading.Event()

    def go_on():
        while not over.wait(0.1):
            look()

    thread = threading.Thread(target=go_on)
    thread.start()
    yield
    over.set()
    thread.join()


def state_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]


def test_one_that_beats_no_more_is_woken_and_ended_when_that_did_not_help(child, tmp_path):
    beats(tmp_path, child, 1)
    seen = watch(alone(child), tmp_path, Order(silent_seconds=2.0))
    assert (seen.codes, seen.silence) == ([-signal.SIGKILL], "stopped")
    assert seen.last.step == 3


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="Linux tells there whether a process is stopped")
def test_one_that_was_stopped_goes_on_when_it_is_woken(child, tmp_path):
    os.kill(child.pid, signal.SIGSTOP)
    number = 0

    def look():
        nonlocal number
        if number <= 15 and state_of(child.pid) != "T":
            number += 1
            beats(tmp_path, child, number, events=number)
        if number == 16:
            os.kill(child.pid, signal.SIGKILL)
            number += 1

    beats(tmp_path, child, 0)
    with meanwhile(look):
        seen = watch(alone(child), tmp_path, Order(silent_seconds=2.0))
    assert (seen.silence, number) == (None, 17)


def test_one_that_beats_and_computes_nothing_is_ended_and_one_that_works_is_not(child, tmp_path):
    number = 0

    def look():
        nonlocal number
        number += 1
        beats(tmp_path, child, number, events=min(number, 40))

    with meanwhile(look):
        seen = watch(alone(child), tmp_path, Order(silent_seconds=60.0, idle_minutes=2 / 60))
    assert seen.silence == "idle"
    assert number > 40
