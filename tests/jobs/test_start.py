"""run.py and starting.py: a run in a process of its own is waited for, steered, taken over, queued, and no orphan."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.jobs.until import until
from tests.makers.small_runs import make, same, weights
from tunebook import jobs
from tunebook.events import EndReason, StepEvent
from tunebook.jobs.layout import PROCESS, read_state
from tunebook.jobs.run import Run
from tunebook.jobs.supervisor import is_supervised
from tunebook.runs.folder import load
from tunebook.runs.lock import is_held

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
    capfd.readouterr()
    assert "step" in (run.run_folder / PROCESS / "child.out").read_text()


async def _awaited(run):
    return await run


def test_nothing_the_processes_write_comes_out_here(tiny_folder, rows, tmp_path, capfd):
    trainer = make(tiny_folder, rows, tmp_path / "runs", max_steps=1)
    capfd.readouterr()
    trainer.start().wait()
    assert capfd.readouterr() == ("", "")


def test_runs_wait_for_one_another_are_steered_and_taken_out(tiny_folder, rows, tmp_path):
    trainers = [make(tiny_folder, rows, tmp_path / "runs", **LONG) for _ in range(2)]
    first, second = (trainer.start() for trainer in trainers)
    until(lambda: any(isinstance(event, StepEvent) for event in polled(first)))
    shown = jobs.queue()
    assert len(shown) in (1, 2)
    assert "run-001" in str(shown)
    assert "<td>running</td>" in shown._repr_html_()
    first.send("learning_rate", 1e-3)
    trainers[0].stop()
    second.stop()
    first_result, second_state = first.result(), second.wait().state
    assert first_result.reason is EndReason.STOPPED
    assert second_state == "stopped"
    assert first.events[-1].message.startswith("Stopped on request")
    assert len(jobs.queue()) == 0


def polled(run):
    run.poll()
    return run.events


NOTEBOOK = """
import json, os, sys, time
from tests.makers.small_runs import make
folder, rows, out, settings = json.loads(sys.argv[1])
for keep in (False, True):
    run = make(folder, rows, out, **settings).start(keep=keep)
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
