"""one_pass.py: a pass leaves the very arrays behind that it found, by which the optimizer knows its own."""

import pytest

from tests.makers.packed_rows import opened, rows_of
from tunebook import TrainingConfig
from tunebook.models.tensors import flat
from tunebook.train.step import Stepper


@pytest.mark.parametrize("compiles", [False, True])
def test_after_a_pass_the_optimizer_finds_the_values_it_holds(tmp_path, compiles):
    model, rows = opened(tmp_path), rows_of((30, 20))
    stepper = Stepper(model.loaded, TrainingConfig(compile=compiles), rows, total_steps=2, max_seq_length=64)
    for step in (1, 2):
        stepper.begin(step)
        before = flat(model.module.trainable_parameters())
        stepper.add(rows, alone=True)
        after = flat(model.module.trainable_parameters())
        assert all(after[name] is array for name, array in before.items())
        if step == 1:
            stepper.finish()
    assert stepper.optimizer.values_in(model.module) is stepper.optimizer.held.values
