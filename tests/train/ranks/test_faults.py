"""A process that is killed or stopped ends all within 30 seconds and is named; one process goes on to the same end."""

import signal

import numpy as np
import pytest

from tests.makers.processes.ranks_faults import Fault, gone_on, struck, undisturbed

SECONDS = 30
FAULTS = [
    Fault(size=2, rank=1, signal=signal.SIGKILL, step=4, later=0.0),
    Fault(size=2, rank=0, signal=signal.SIGSTOP, step=5, later=0.1),
    Fault(size=3, rank=2, signal=signal.SIGSTOP, step=4, later=0.05),
]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.signal.name} of {fault.rank} in {fault.size}")
def test_a_lost_process_ends_all_and_the_run_goes_on_in_one(fault, wanted, tmp_path):
    outcome = struck(fault, tmp_path)
    assert outcome.seconds < SECONDS
    assert all(outcome.codes)
    assert f"Rank {fault.rank} (" in outcome.wrote
    if fault.rank:
        assert outcome.step >= fault.step  # the first process saved the last whole step
    found = gone_on(tmp_path)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=2e-3)
