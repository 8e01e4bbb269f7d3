"""Runs in 2 and in 3 processes on the loopback are the run of one: its gradients, its losses, its end."""

import json

import numpy as np
import pytest

from tests.makers.processes.ranks_child import GRADIENT, RUNS
from tests.makers.processes.ranks_launch import ended, started

SECONDS = 400
GRADIENTS = [name for name, run in RUNS.items() if run[2].get("optim") == GRADIENT["optim"]]
WHOLE = ["fifty", "dropout", "best", "guard"]
SIZES = [2, 3]


@pytest.fixture(scope="module", params=SIZES)
def several(request, tmp_path_factory):
    """(how many processes, the folder in which all runs lie that they took together)."""
    return request.param, _taken(request.param, tmp_path_factory.mktemp(f"of {request.param}"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder with the same runs of one process."""
    return _taken(1, tmp_path_factory.mktemp("of 1"))


def _taken(size, folder):
    processes = started(size, folder, [str(folder), *GRADIENTS, *WHOLE])
    for code, wrote in ended(processes, SECONDS):
        assert code == 0, wrote[-3000:]
    return folder


def arrays(folder, name, rank=0, what=""):
    with np.load(folder / f"{name} {rank}{what}.npz") as found:
        return dict(found)


def said(folder, name, rank=0):
    return json.loads((folder / f"{name} {rank}.json").read_text())


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_one_process(name, several, alone):
    _, folder = several
    ours, theirs = arrays(folder, name, what=" change"), arrays(alone, name, what=" change")
    largest = max(np.abs(change).max() for change in theirs.values())
    assert largest > 1e-3  # there is something to compare
    for key, change in theirs.items():
        np.testing.assert_allclose(ours[key], change, atol=1e-6 * max(1.0, largest), rtol=0)


@pytest.mark.parametrize("name", [*GRADIENTS, *WHOLE])
def test_weights_are_the_same_bits_in_every_process(name, several):
    size, folder = several
    first = arrays(folder, name)
    for rank in range(1, size):
        other = arrays(folder, name, rank)
        assert first.keys() == other.keys()
        assert all(np.array_equal(first[key], other[key], equal_nan=True) for key in first)


@pytest.mark.parametrize("name", [*GRADIENTS, "fifty"])
def test_what_is_told_of_steps_is_that_of_one_process(name, several, alone):
    ours, theirs = said(several[1], name), said(alone, name)
    assert len(ours["losses"]) == RUNS[name][2]["max_steps"]
    for values in ("losses", "norms"):
        np.testing.assert_allclose(ours[values], theirs[values], rtol=2e-4)
    assert ours["tokens"] == theirs["tokens"]
    for metrics, wanted in zip(ours["metrics"], theirs["metrics"], strict=True):
        assert metrics == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_fifty_steps_end_where_those_of_one_process_do(several, alone):
    ours, theirs = arrays(several[1], "fifty"), arrays(alone, "fifty")
    # Adam divides small gradients by their size: what rounding makes of one of 1e-8 is a step of the full rate.
    for key, wanted in theirs.items():
        np.testing.assert_allclose(ours[key], wanted, atol=2e-3)
    np.testing.assert_allclose(said(several[1], "fifty")["evals"], said(alone, "fifty")["evals"], rtol=1e-4)


def test_a_held_out_loss_before_training_is_that_of_one_process_to_the_last_bit(several, alone):
    assert said(several[1], "fifty")["evals"][0] == said(alone, "fifty")["evals"][0]


def test_the_best_weights_and_an_early_stop_are_decided_as_by_one_process(several, alone):
    size, folder = several
    theirs = said(alone, "best")
    assert theirs["reason"] == "early_stopped"
    for rank in range(size):
        ours = said(folder, "best", rank)
        assert ours["reason"] == "early_stopped"
        assert len(ours["losses"]) == len(theirs["losses"])


def test_steps_that_are_not_finite_are_applied_by_nobody_and_end_the_run_everywhere(several, alone):
    size, folder = several
    for rank in range(size):
        assert said(folder, "guard", rank)["reason"] == said(alone, "guard")["reason"] == "not_finite"
    assert all(np.isfinite(array).all() for array in arrays(folder, "guard").values())


def test_dropout_drops_other_inputs_in_every_process_and_in_one(several, alone):
    # Not the run of one process, and of the same size: other masks, but as many of them.
    ours, theirs = said(several[1], "dropout")["losses"], said(alone, "dropout")["losses"]
    assert ours != theirs
    np.testing.assert_allclose(ours, theirs, rtol=0.1)


def test_the_first_process_alone_writes_a_run(several):
    size, folder = several
    assert said(folder, "fifty")["folder"]
    assert all(said(folder, "fifty", rank)["folder"] is None for rank in range(1, size))
    runs = [path.name for path in (folder / "runs" / "fifty").iterdir()]
    assert runs == ["run-001"]
    log = folder / "runs" / "fifty" / "run-001" / "events.jsonl"
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["step"] for event in told if event["event"] == "step"] == list(range(1, 51))
    lanes = [event for event in told if event["event"] == "ranks"]
    assert lanes
    assert all(len(event["tokens_sec"]) == len(event["waiting"]) == size for event in lanes)
    assert told[0]["ranks"] == size
