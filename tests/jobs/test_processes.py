"""Several processes of a job: the run of one, stopped and struck; those that `mlx.launch` starts, and one of those."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.jobs.made_jobs import result_of
from tests.jobs.until import until
from tests.makers.processes.ranks_child import JUDGED
from tests.makers.small_runs import make, weights
from tunebook import Trainer, TrainingConfig
from tunebook.events import Command, CommandReceived, EndReason, RunStarted, StepEvent
from tunebook.objectives import KTO
from tunebook.runs.folder import load
from tunebook.runs.lock import is_held
from tunebook.runs.looked_after.state import read_state

# Plain descent: what rounding makes of a gradient stays as small as it is.
ALIKE = {
    **{"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": None, "neftune_noise_alpha": None},
    **{"max_steps": 40, "save_steps": 10, "dropout": 0.0},
}
HOSTS = [{"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}] * 2


@pytest.fixture(autouse=True)
def own_queue(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def alone(tiny_folder, rows, tmp_path_factory):
    """The weights and the losses of one process."""
    trainer = make(tiny_folder, rows, tmp_path_factory.mktemp("alone"), **ALIKE)
    result = trainer.train()
    return weights(trainer), [step.loss for step in result.steps]


def told(run, true):
    """Wait until the run has told an event of which `true` holds."""
    until(lambda: run.poll() or any(true(event) for event in run.events))


def is_that_of(alone, folder):
    wanted, losses = alone
    np.testing.assert_allclose(load(folder).loss, losses, rtol=1e-4)
    found = result_of(folder)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)


def test_two_processes_are_the_run_of_one_also_when_one_of_them_is_killed(tiny_folder, rows, tmp_path, alone):
    trainer = make(tiny_folder, rows, tmp_path / "runs", **ALIKE)
    run = trainer.start(processes=2, restarts=1)
    told(run, lambda event: isinstance(event, StepEvent))
    run.send("pause")
    told(run, lambda event: isinstance(event, CommandReceived) and event.command is Command.PAUSE)
    os.kill(read_state(run.run_folder).others[0], signal.SIGKILL)
    assert run.result().reason is EndReason.FINISHED
    state = read_state(run.run_folder)
    assert (state.begun, state.ended_well) == (2, True)
    assert state.causes[0].startswith("Rank 1 ")  # with its machine and number, where it came to say them
    assert "went down. Its process was killed (SIGKILL)" in state.causes[0]
    assert [event.ranks for event in run.events if isinstance(event, RunStarted)] == [2]
    is_that_of(alone, run.run_folder)
    assert not is_held(run.run_folder)


def test_hosts_are_started_by_mlx_launch_and_stopped_by_the_handle_and_one_of_it_goes_on(
    tiny_folder, rows, tmp_path, alone
):
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps(HOSTS))
    run = make(tiny_folder, rows, tmp_path / "runs", **ALIKE).start(hosts=hosts)
    hosts.unlink()  # what it said went along
    told(run, lambda event: isinstance(event, StepEvent))
    run.stop()
    assert run.result().reason is EndReason.STOPPED
    assert 1 <= run.events[-1].step < ALIKE["max_steps"]
    launch = [shutil.which("mlx.launch", path=str(Path(sys.executable).parent)), "-n", "1", "--", sys.executable]
    command = [*launch, "-m", "tunebook", "train", str(run.run_folder)]
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, check=True, timeout=300)
    assert load(run.run_folder).ended.reason is EndReason.FINISHED, done.stderr[-3000:]
    is_that_of(alone, run.run_folder)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"processes": 0}, "start.processes is 0; it must be a whole number, at least 1"),
        ({"processes": 2, "hosts": "hosts.json"}, "processes=2 and hosts='hosts.json'; give one of them"),
        ({"hosts": "missing.json"}, "'missing.json', which cannot be read"),
        ({"hosts": "empty.json"}, r"there is no host in it\); it is a list"),
        ({"hosts": "text.json"}, "is no hosts file of mlx.launch"),
        ({"hosts": "far.json"}, "The first of the hosts in far.json is 192.0.2.7, which is not this machine"),
    ],
)
def test_what_no_processes_can_be_started_by_is_refused_in_a_sentence(given, words, tiny_folder, rows, tmp_path):
    Path("empty.json").write_text("[]")
    Path("text.json").write_text("studio.local, mini.local")
    Path("far.json").write_text(json.dumps([{"ssh": "192.0.2.7", "ips": ["192.0.2.7"]}, *HOSTS]))
    trainer = make(tiny_folder, rows, tmp_path / "runs", **ALIKE)
    with pytest.raises(ValueError, match=words) as error:
        trainer.start(**given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_micro_batches_that_cannot_be_split_are_enough_for_all_before_anything_is_started(adapted, tmp_path):
    args = TrainingConfig(gradient_accumulation_steps=1, max_steps=2, output_dir=str(tmp_path / "runs"))
    trainer = Trainer(adapted, train_dataset=JUDGED, objective=KTO(), args=args)
    with pytest.raises(ValueError, match="gradient_accumulation_steps is 1, and there are 2 processes"):
        trainer.start(processes=2)
    assert not (tmp_path / "runs").exists()
