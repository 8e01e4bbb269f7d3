"""The run that every disturbed one is held against."""

import pytest

from tests.makers.small_runs import make, weights


@pytest.fixture(scope="session")
def straight(tiny_folder, rows, tmp_path_factory):
    """(losses, final weights) of the run nobody disturbed."""
    trainer = make(tiny_folder, rows, tmp_path_factory.mktemp("straight"))
    return [step.loss for step in trainer.train().steps], weights(trainer)
