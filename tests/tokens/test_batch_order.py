import itertools

import numpy as np
import pytest

from tunebook import TrainingConfig
from tunebook.config import Order
from tunebook.tokens.batch_order import (
    padded_width,
    padding_notice,
    padding_share,
    steps_per_epoch,
    torch_randperm,
    total_steps,
    windows,
)

ORDERS = Order.__args__


def config(**settings):
    return TrainingConfig(**{"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, **settings})


def lengths_of(rows, seed=0):
    """Most rows short and a few long, as in real data."""
    return np.random.default_rng(seed).lognormal(5, 1, rows).astype(int).clip(2, 2048).tolist()


def epochs(lengths, config, count):
    """The windows of the first `count` epochs, epoch by epoch."""
    stream = windows(lengths, config)
    return [list(itertools.islice(stream, steps_per_epoch(len(lengths), config))) for _ in range(count)]


def batches_of(epoch):
    return [batch for window in epoch for batch in window]


@pytest.mark.parametrize(("longest", "width"), [(1, 33), (32, 33), (33, 65), (64, 65), (1000, 1025), (2040, 2048)])
def test_a_batch_is_one_wider_than_a_multiple_of_32_and_never_wider_than_the_limit(longest, width):
    assert padded_width(longest, max_seq_length=2048) == width


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 18, 19, 500])
def test_every_epoch_shows_every_row_once_and_no_window_spans_two(rows, order):
    for epoch in epochs(lengths_of(rows), config(dataset_order=order), 3):
        sizes = [len(batch) for batch in batches_of(epoch)]
        assert sorted(row for batch in batches_of(epoch) for row in batch) == list(range(rows))
        assert sorted(sizes)[1:] == [3] * (len(sizes) - 1)  # one batch at most is smaller
        assert [len(window) for window in epoch[:-1]] == [2] * (len(epoch) - 1)


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "sequential"])
def test_each_epoch_and_each_seed_has_its_own_order(order):
    def orders(seed):
        return [str(epoch) for epoch in epochs(lengths_of(60), config(seed=seed, dataset_order=order), 2)]

    assert orders(1) == orders(1)
    assert len({*orders(1), *orders(7)}) == 4


def test_the_length_of_a_run_is_what_was_asked_for():
    assert total_steps(19, config()) == steps_per_epoch(19, config()) == 4  # 7 batches, 2 per step
    assert total_steps(19, config(num_train_epochs=2.5)) == 10
    assert total_steps(19, config(max_steps=3)) == 3


def test_sequential_is_the_order_of_the_rows_in_every_epoch():
    expected = [[[0, 1, 2], [3, 4, 5]], [[6]]]
    assert epochs(lengths_of(7), config(dataset_order="sequential"), 2) == [expected, expected]


def test_length_sorted_has_the_batches_of_mlx_lm_and_the_rows_it_drops():
    """mlx-lm sorts once, cuts, and permutes the batches; see mlx_lm.tuner.trainer.iterate_batches."""
    from mlx_lm.tuner.trainer import iterate_batches

    lengths = lengths_of(20)
    rows = [([row + 1] * length, 0) for row, length in enumerate(lengths)]  # a row's tokens are its number plus one
    batches = iterate_batches(rows, batch_size=3, max_seq_length=2048, seed=0)
    theirs = {tuple((np.array(tokens)[:, 0] - 1).tolist()) for tokens, _ in batches}
    for epoch in epochs(lengths, config(dataset_order="length_sorted"), 3):
        ours = {tuple(batch) for batch in batches_of(epoch)}
        assert theirs < ours
        assert len(ours - theirs) == 1  # the two rows that fill no batch


@pytest.mark.parametrize("count", [1, 2, 5, 17, 1000, 20000])
@pytest.mark.parametrize("seed", [0, 1, 3407, 2**32 - 1, 2**32 + 5])
def test_torch_randperm_is_the_permutation_of_torch(count, seed):
    torch = pytest.importorskip("torch")
    theirs = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert torch_randperm(count, seed) == theirs.tolist()


def test_an_epoch_in_torchs_order_is_seeded_by_the_seed_plus_the_epoch():
    for number, epoch in enumerate(epochs(lengths_of(50), config(dataset_order="torch_randperm", seed=9), 3)):
        assert [row for batch in batches_of(epoch) for row in batch] == torch_randperm(50, 9 + number)


def test_grouping_by_length_pads_a_third_of_what_shuffling_does_at_most():
    lengths = lengths_of(4000)
    settings = {"per_device_train_batch_size": 8}
    share = {
        order: padding_share(lengths, config(dataset_order=order, **settings), max_seq_length=2048) for order in ORDERS
    }
    assert share["shuffle"] > 0.5
    assert share["length_sorted"] < share["length_grouped"] < share["shuffle"] / 3


def test_the_share_of_padding_is_what_the_collated_batches_hold():
    lengths = [10, 40, 100, 7]  # batches of 2, padded to 65 and 129
    settings = config(dataset_order="sequential", per_device_train_batch_size=2)
    assert padding_share(lengths, settings, max_seq_length=2048) == pytest.approx(1 - 157 / (2 * 65 + 2 * 129))


def test_grouping_by_length_begins_with_the_batch_that_takes_most_memory():
    lengths = lengths_of(1000)
    first, *others = batches_of(epochs(lengths, config(dataset_order="length_grouped"), 1)[0])
    most = max(len(batch) * max(lengths[row] for row in batch) for batch in others)
    assert len(first) * max(lengths[row] for row in first) >= most


def test_grouping_by_length_gives_short_and_long_rows_the_same_place_in_an_epoch_on_average():
    lengths = np.array(lengths_of(1000))
    order = epochs(lengths.tolist(), config(dataset_order="length_grouped", seed=2), 21)[1:]
    places = np.mean([np.argsort([row for batch in batches_of(epoch) for row in batch]) for epoch in order], axis=0)
    short, long = lengths < np.median(lengths), lengths >= np.median(lengths)
    assert abs(places[short].mean() - places[long].mean()) < 40  # of 1000


def test_grouping_by_length_brings_a_row_together_with_others_in_every_epoch():
    def companions(order):
        met = [set() for _ in range(400)]
        for epoch in epochs(lengths_of(400), config(dataset_order=order), 5):
            for batch in batches_of(epoch):
                for row in batch:
                    met[row] |= set(batch) - {row}
        return np.mean([len(others) for others in met])

    assert companions("length_sorted") <= 2
    assert companions("length_grouped") > 6  # of at most ten


def test_padding_worth_avoiding_is_said_with_what_another_order_leaves_of_it():
    shuffled = config(per_device_train_batch_size=4)
    grouped = config(per_device_train_batch_size=4, dataset_order="length_grouped")
    lengths = [31, 500] * 200
    said = padding_notice(lengths, shuffled, max_seq_length=2048)
    share = padding_share(lengths, shuffled, max_seq_length=2048)
    assert said is not None
    assert said.startswith(f"{share:.0%} of the tokens")
    assert "length_grouped" in said
    assert padding_notice([300] * 400, shuffled, max_seq_length=2048) is None
    assert padding_notice(lengths, grouped, max_seq_length=2048) is None
