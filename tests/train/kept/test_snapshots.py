"""Weights that were kept come back, and only when they are not there already."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tunebook.runs.best import BY_LOSS, Measured, Yardstick
from tunebook.train.kept.snapshots import KeptWeights

BEST = Measured(step=3, value=1.25)


@pytest.fixture
def layer():
    layer = nn.Linear(2, 2)
    layer.freeze(keys=["bias"], recurse=False)
    return layer


def set_to(layer, value):
    layer.weight, layer.bias = mx.full((2, 2), value), mx.full((2,), value)


def test_the_best_weights_come_back_and_what_is_frozen_stays(layer):
    kept = KeptWeights(layer)
    set_to(layer, 1.0)
    kept.keep_best()
    set_to(layer, 2.0)
    said = kept.put_best_back(BEST, BY_LOSS, 5, kept_step=3)
    assert said == "The weights of step 3, with the lowest held-out loss (1.2500), are in the model."
    assert np.array_equal(layer.weight, np.full((2, 2), 1.0))
    assert np.array_equal(layer.bias, np.full(2, 2.0))


@pytest.mark.parametrize(("best", "step"), [(BEST, 3), (None, 5)], ids=["of the last step", "no finite score"])
def test_where_there_are_none_better_the_last_weights_stay(layer, best, step):
    kept = KeptWeights(layer)
    set_to(layer, 1.0)
    kept.keep_best()
    set_to(layer, 2.0)
    assert kept.put_best_back(best, BY_LOSS, step, kept_step=3) is None
    assert np.array_equal(layer.weight, np.full((2, 2), 2.0))


@pytest.mark.parametrize("kept_step", [None, 2])
def test_a_best_that_was_not_kept_is_said_and_weights_of_another_step_do_not_stand_in(layer, kept_step):
    kept = KeptWeights(layer)
    if kept_step is not None:
        set_to(layer, 1.0)
        kept.keep_best()
    set_to(layer, 2.0)
    by = Yardstick(metric="exact_match", higher_is_better=True)
    said = kept.put_best_back(BEST, by, 5, kept_step=kept_step)
    assert said.startswith("The highest exact_match (1.25) is that of step 3, whose weights were not kept")
    assert np.array_equal(layer.weight, np.full((2, 2), 2.0))


def test_a_discard_says_when_so_much_is_trained_that_the_start_was_not_kept(layer):
    kept = KeptWeights(layer, start_fits=False)
    kept.keep_start()
    set_to(layer, 2.0)
    assert "load the model again" in kept.put_start_back()
    assert np.array_equal(layer.weight, np.full((2, 2), 2.0))
