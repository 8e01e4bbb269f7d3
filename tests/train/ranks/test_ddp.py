"""Two of our processes learn what two of torch's DistributedDataParallel learn, on the same ragged rows."""

import json
from itertools import islice

import numpy as np
import pytest

from tests.makers.processes.ranks_child import RUNS, trainer_of
from tests.makers.processes.ranks_launch import ended, processes_of, started
from tunebook.tokens.feed import Place

SIZE = 2


@pytest.fixture
def steps(tmp_path):
    """Of each step, of each rank, the rows; torch's ranks take every other row, ours whole micro-batches."""
    trainer = trainer_of("full", tmp_path / "model", tmp_path)
    count = RUNS["full"][2]["max_steps"]
    found = []
    for portion in islice(trainer.data.feed.portions(Place()), count):
        rows = [row for batch in portion.batches for row in batch]
        plain = [[row.tokens.tolist(), row.loss_mask.tolist()] for row in rows]
        found.append([plain[rank::SIZE] for rank in range(SIZE)])
    (tmp_path / "steps.json").write_text(json.dumps(found))
    return found


def test_weights_are_those_of_ddp_over_all_tokens(steps, tmp_path):
    counts = {sum(sum(mask[1:]) for _, mask in rows) for step in steps for rows in step}
    assert len(counts) > 2  # a mean of means would be another
    theirs = [["-m", "tests.makers.processes.ddp_child", str(tmp_path), str(rank), str(SIZE)] for rank in range(SIZE)]
    for code, wrote in ended(processes_of(theirs), 240):
        assert code == 0, wrote[-3000:]
    for code, wrote in ended(started(SIZE, tmp_path, [str(tmp_path), "full"]), 240):
        assert code == 0, wrote[-3000:]
    with np.load(tmp_path / "ddp.npz") as ddp, np.load(tmp_path / "full 0.npz") as ours:
        with np.load(tmp_path / "full 0 change.npz") as change:
            assert max(np.abs(change[name]).max() for name in ours) > 1e-3
        for name in ours:
            np.testing.assert_allclose(ours[name], ddp[name], atol=1e-5, rtol=0)
