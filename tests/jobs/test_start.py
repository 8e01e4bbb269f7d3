"""run.py and starting.py: a run in a process of its own is waited for, steered, taken over, queued, and no orphan."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.until import until
from tests.makers.small_runs import make, same, weights
from tunebook import jobs
from tunebook.events import EndReason, StepEvent
from tunebook.jobs.earlier import earlier_run
from tunebook.jobs.layout import Order
from tunebook.jobs.run import Run
from tunebook.jobs.written import check_carried, fingerprint_of
from tunebook.runs.folder import load
from tunebook.runs.lock import is_held
from tunebook.runs.looked_after.state import PROCESS, is_supervised, read_state

LONG = {"max_steps": 100_000, "save_steps": 1000, "gradient_accumulation_steps": 1}


@pytest.fixture(autouse=True)
def own_queue(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))


def test_a_run_is_started_told_of_here_and_its_weights_are_taken_over(tiny_folder, rows, tmp_path, capfd):
    here, there = (make(tiny_folder, rows, tmp_path / name, max_steps=3) for name in ("here", "there"))
    steps, before = [], weights(there)
    there.add_step_callback(lambda step, *_: steps.append(step))
    run = there.start()
    assert same(weights(there), before)
    assert "\n" not in repr(run)
    result = asyncio.run(_awaited(run))
    expected = here.train()
    assert (result.reason, steps) == (EndReason.FINISHED, [1, 2, 3])
    assert [step.loss for step in result.steps] == [step.loss for step in expected.steps]
    assert same(weights(there), weights(here))
    assert (run.state, run.run_folder) == ("finished", tmp_path / "there" / "run-001")
    assert "step" in (run.run_folder / PROCESS / "child.out").read_text()
    capfd.readouterr()
    another_day = make(tiny_folder, rows, tmp_path / "there", max_steps=3)
    found = another_day.start()
    assert (found.run_folder, found.state) == (run.run_folder, "finished")
    said = capfd.readouterr().out
    assert re.search(
        r"\n.*run-001 is a run of this very model.* has finished.*start\(again=True\) trains anew\.\n$", said
    )
    assert same(weights(another_day), before)
    assert [step.loss for step in found.result().steps] == [step.loss for step in expected.steps]
    assert same(weights(another_day), weights(here))
    for other in ({"max_steps": 2}, {"seed": 1}, {"learning_rate": 1e-3}):
        assert earlier_of(make(tiny_folder, rows, tmp_path / "there", **{"max_steps": 3, **other})) is None
    assert earlier_of(another_day) is None  # it has learnt something: it would go on from there
    assert earlier_of(make(tiny_folder, rows[1:], tmp_path / "there", max_steps=3)) is None


def earlier_of(trainer):
    """The run that starting `trainer` would find."""
    work = trainer._work()
    fingerprint = fingerprint_of(work, check_carried(work))
    return earlier_run(fingerprint, trainer.config.output_dir, Order(), work.model)


async def _awaited(run):
    return await run


def test_nothing_the_processes_write_comes_out_here(tiny_folder, rows, tmp_path, capfd):
    trainer = make(tiny_folder, rows, tmp_path / "runs", max_steps=1)
    capfd.readouterr()
    trainer.start().wait()
    assert capfd.readouterr() == ("", "")


def test_runs_wait_for_one_another_are_steered_and_taken_out(tiny_folder, rows, tmp_path, capsys):
    trainers = [make(tiny_folder, rows, tmp_path / "runs", **LONG, seed=seed) for seed in range(2)]
    first, second = (trainer.start() for trainer in trainers)
    assert [run.folder.name for run in jobs.queue()] == ["run-001", "run-002"]
    until(lambda: any(isinstance(event, StepEvent) for event in polled(first)))
    shown = jobs.queue()
    assert len(shown) == 2
    assert first.pid not in (None, os.getpid(), second.pid)
    assert "tunebook" in Path(f"/proc/{first.pid}/cmdline").read_text() if sys.platform == "linux" else first.pid
    assert "run-001" in str(shown)
    assert "<td>running</td>" in shown._repr_html_()
    rerun = make(tiny_folder, rows, tmp_path / "runs", **LONG, seed=0)
    assert rerun.start().run_folder == first.run_folder
    assert "goes on: this is its handle" in capsys.readouterr().out
    for _ in range(2):
        assert trainers[1]._model.generate("one two", max_tokens=8)
    cost = r"^The run in .*run-001 (?:took [\d.]+ s a step meanwhile, [\d.]+ s before|trains meanwhile; both .*)\.$"
    assert len(re.findall(cost, capsys.readouterr().out, re.MULTILINE)) == 1  # of two handles, and asked twice
    first.send("learning_rate", 1e-3)
    trainers[0].stop()
    second.stop()
    first_result, second_state = first.result(), second.wait().state
    assert first_result.reason is EndReason.STOPPED
    assert (second_state, first.pid) == ("stopped", None)
    assert first.events[-1].message.startswith("Stopped on request")
    assert earlier_of(rerun) is None  # what was stopped is begun anew
    assert len(jobs.queue()) == 0


def polled(run):
    run.poll()
    return run.events


NOTEBOOK = """
import json, os, sys, time
import tests.makers.processes.without_torch
from tests.makers.small_runs import make
folder, rows, out, settings = json.loads(sys.argv[1])
for keep in (False, True):
    run = make(folder, rows, out, **settings).start(keep=keep, again=True)
    while not any(type(event).__name__ == "StepEvent" for event in run.events):
        run.poll()
        time.sleep(0.05)
print("both run", flush=True)
time.sleep(600)
"""


def test_a_killed_notebook_leaves_no_orphan_and_a_run_that_was_to_be_kept_goes_on(tiny_folder, rows, tmp_path):
    arguments = json.dumps([str(tiny_folder), rows, str(tmp_path / "runs"), LONG])
    notebook = subprocess.Popen([sys.executable, "-c", NOTEBOOK, arguments], stdout=subprocess.PIPE, text=True)
    assert notebook.stdout is not None
    assert "both run\n" in notebook.stdout
    os.kill(notebook.pid, signal.SIGKILL)
    notebook.wait()
    notebook.stdout.close()
    unwanted, kept = tmp_path / "runs" / "run-001", tmp_path / "runs" / "run-002"
    until(lambda: not is_supervised(unwanted), seconds=60)
    ended = load(unwanted).ended
    assert ended is not None
    assert ended.reason is EndReason.STOPPED
    assert (unwanted / "checkpoints" / f"step-{ended.step:05d}").is_dir()
    assert [is_held(unwanted), is_held(kept), is_supervised(kept)] == [False, True, True]
    again = Run(kept)
    again.stop()
    assert again.wait().state == "stopped"
    assert not is_held(kept)


def test_a_supervisor_that_is_killed_takes_no_run_with_it(tiny_folder, rows, tmp_path):
    run = make(tiny_folder, rows, tmp_path / "runs", **LONG).start()
    until(lambda: any(isinstance(event, StepEvent) for event in polled(run)))
    state = read_state(run.run_folder)
    os.kill(state.supervisor, signal.SIGKILL)
    run._supervisor.wait()
    assert is_held(run.run_folder)  # the run goes on: it is wanted
    run.send("stop")
    run.wait()
    assert not is_held(run.run_folder)
    assert (run.state, run.result().reason) == ("stopped", EndReason.STOPPED)
