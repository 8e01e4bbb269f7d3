import itertools

import pytest

from tunebook import TrainingConfig
from tunebook.batches import padded_width, steps_per_epoch, total_steps, windows


def config(**settings):
    return TrainingConfig(**{"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, **settings})


@pytest.mark.parametrize(("longest", "width"), [(1, 33), (32, 33), (33, 65), (64, 65), (1000, 1025), (2040, 2048)])
def test_a_batch_is_one_wider_than_a_multiple_of_32_and_never_wider_than_the_limit(longest, width):
    assert padded_width(longest, max_seq_length=2048) == width


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 18, 19])
def test_every_epoch_shows_every_row_once_and_no_window_spans_two(rows):
    stream = windows(rows, config())
    for _ in range(3):
        epoch = list(itertools.islice(stream, steps_per_epoch(rows, config())))
        assert sorted(number for window in epoch for batch in window for number in batch) == list(range(rows))
        assert all(len(window) <= 2 and all(len(batch) <= 3 for batch in window) for window in epoch)


def test_each_epoch_and_each_seed_has_its_own_order():
    def order(seed, epochs=2):
        stream = windows(12, config(seed=seed))
        return [str(list(itertools.islice(stream, 2))) for _ in range(epochs)]

    assert order(1) == order(1)
    assert len({*order(1), *order(2)}) == 4


def test_the_length_of_a_run_is_what_was_asked_for():
    assert total_steps(19, config()) == steps_per_epoch(19, config()) == 4  # 7 batches, 2 per step
    assert total_steps(19, config(num_train_epochs=2.5)) == 10
    assert total_steps(19, config(max_steps=3)) == 3
