"""tickets.py: turns are taken in order, side by side only what fits, and the dead hold nobody up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunebook.jobs.tickets import Place, tickets

HOLDING = """
import sys, time
from pathlib import Path
from tunebook.jobs.tickets import Place
place = Place(Path(sys.argv[1]), model="tiny", estimate_gb=6, limit_gb=10)
print(place.its_turn(), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_queue(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))


def place(name, estimate_gb=6.0):
    return Place(Path(name), model="tiny", estimate_gb=estimate_gb, limit_gb=10)


def test_one_runs_at_a_time_in_the_order_they_came():
    with place("a") as first:
        assert first.its_turn()
        second, third = place("b"), place("c")
        assert [third.its_turn(), second.its_turn()] == [False, False]
    with second, third:
        assert [third.its_turn(), second.its_turn(), third.its_turn()] == [False, True, False]
        assert [(ticket.folder, ticket.runs) for ticket in tickets()] == [("b", True), ("c", False)]
    assert tickets() == []


@pytest.mark.parametrize(("estimate", "fits"), [(4.0, True), (4.1, False), (0.0, False)])
def test_side_by_side_goes_only_what_fits_together_and_is_known(estimate, fits):
    with place("a") as first, place("b", estimate) as second:
        assert first.its_turn()
        assert second.its_turn() is fits


def test_a_small_run_does_not_overtake_a_large_one_that_waits():
    with place("a") as first, place("large", 9.0) as large, place("small", 1.0) as small:
        assert first.its_turn()
        assert [small.its_turn(), large.its_turn()] == [False, False]


def test_the_place_of_a_process_that_was_killed_is_free(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLDING, "held"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "True\n"
    with place("next") as waiting:
        assert not waiting.its_turn()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert waiting.its_turn()
        assert [ticket.folder for ticket in tickets()] == ["next"]
