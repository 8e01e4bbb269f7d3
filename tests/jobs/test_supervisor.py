"""supervisor.py: whatever ends a child, it is said why, and with restarts the run becomes the undisturbed one."""

import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies

from tests.jobs.made_jobs import dying, job_of, result_of
from tests.makers.small_runs import make, same, weights
from tunebook.events import EndReason
from tunebook.jobs import supervisor
from tunebook.jobs.training import train_job
from tunebook.runs.folder import load
from tunebook.runs.lock import RunInUse, RunLock, is_held
from tunebook.runs.looked_after.state import read_state

SHORT = {"max_steps": 6, "save_steps": 2}


@dataclass(frozen=True)
class Outcome:
    """What a run comes to; hypothesis shows a case that failed with all its arguments, and arrays are long."""

    weights: Any = field(repr=False)
    losses: list[float] = field(repr=False)


@pytest.fixture(scope="module")
def undisturbed(tiny_folder, rows, tmp_path_factory):
    trainer = make(tiny_folder, rows, tmp_path_factory.mktemp("undisturbed"), **SHORT)
    result = trainer.train()
    return Outcome(weights(trainer), [step.loss for step in result.steps])


@pytest.fixture(autouse=True)
def own_queue(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))


def test_a_child_that_dies_three_deaths_ends_as_one_that_was_left_alone(
    tiny_folder, rows, tmp_path, undisturbed, monkeypatch
):
    job = job_of(make(tiny_folder, rows, tmp_path / "runs", **SHORT), tmp_path / "job", restarts=3)
    deaths = [["SIGKILL", 2, 1], ["metal", 4, 2], ["exit", 5, 1]]
    monkeypatch.setattr(supervisor, "start_children", dying(tmp_path, deaths))
    state = supervisor.supervise(job)
    assert (state.state, state.ended_well, state.begun) == ("ended", True, 4)
    assert "killed" in state.causes[0]
    assert "per_device_train_batch_size" in state.causes[1]
    assert "exit code 7" in state.causes[2]
    assert same(result_of(job), undisturbed.weights)
    assert load(job).loss.tolist() == undisturbed.losses
    assert read_state(job) == state


DEATHS = strategies.tuples(
    strategies.sampled_from(["SIGKILL", "SIGABRT", "SIGSTOP", "exit", "metal"]),
    strategies.integers(min_value=1, max_value=6),
    strategies.integers(min_value=1, max_value=2),
)
TRIALS = int(os.environ.get("TUNEBOOK_DEATH_TRIALS", "4"))


@settings(
    max_examples=TRIALS,
    deadline=None,
    derandomize="TUNEBOOK_DEATH_SEED" not in os.environ,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(deaths=strategies.lists(DEATHS, min_size=1, max_size=4, unique_by=lambda death: death[1:]))
def test_any_schedule_of_deaths_ends_as_the_undisturbed_run_with_one_child_at_a_time(
    deaths, tiny_folder, rows, undisturbed, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("deaths")
    job = job_of(make(tiny_folder, rows, folder / "runs", **SHORT), folder / "job", restarts=12, silent_seconds=5.0)
    starts, alone = dying(folder, deaths), []

    def start(run_folder, order):
        alone.append(not is_held(run_folder))
        return starts(run_folder, order)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "start_children", start)
        state = supervisor.supervise(job)
    assert state.ended_well, state
    assert same(result_of(job), undisturbed.weights)
    assert load(job).loss.tolist() == undisturbed.losses
    assert all(alone)
    killing = [how for how, _, _ in deaths if how != "SIGSTOP"]
    assert state.begun <= 1 + len(killing) + 2  # a machine that is slow may have one ended for its silence


def test_a_second_supervisor_and_a_second_child_are_turned_away(tiny_folder, rows, tmp_path):
    job = job_of(make(tiny_folder, rows, tmp_path / "runs", **SHORT), tmp_path / "job")
    with RunLock(job), pytest.raises(RunInUse):
        train_job(job)
    with supervisor._alone_with(job), pytest.raises(supervisor.Supervised, match="already"):
        supervisor.supervise(job)


def test_what_would_end_the_same_way_is_not_begun_again(tiny_folder, rows, tmp_path, monkeypatch):
    job = job_of(make(tiny_folder, rows, tmp_path / "runs", **SHORT), tmp_path / "job", restarts=3, silent_seconds=60.0)
    monkeypatch.setattr(supervisor, "start_children", dying(tmp_path, [["SIGTERM", 3, 1]]))
    state = supervisor.supervise(job)  # a run that hears it stops with the step in progress
    assert (state.begun, state.ended_well, load(job).ended.reason) == (1, True, EndReason.STOPPED)
    (job / "job" / "trained.safetensors").write_bytes(b"damaged")
    state = supervisor.supervise(job)
    assert (state.begun, state.ended_well) == (1, False)
    assert "before its first step" in state.said


def test_a_run_that_comes_no_further_is_given_up_and_its_log_says_why(tiny_folder, rows, tmp_path, monkeypatch):
    job = job_of(make(tiny_folder, rows, tmp_path / "runs", **SHORT), tmp_path / "job", restarts=50)
    monkeypatch.setattr(supervisor, "start_children", dying(tmp_path, [["SIGKILL", 2, 1]] * 9))
    state = supervisor.supervise(job)
    assert (state.begun, state.ended_well) == (supervisor.IN_VAIN, False)
    assert "no further" in state.said
    ended = load(job).ended
    assert (ended.reason, ended.message, ended.step) == (EndReason.FAILED, state.said, 1)
