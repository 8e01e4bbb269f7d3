import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from tunebook.encoding import encode_rows
from tunebook.loss import summed_loss, supervised_positions


@pytest.fixture
def batch(tuned, rows):
    encoded = encode_rows(rows[:4], tuned.loaded, max_seq_length=128).rows
    return tuned.family.collate(encoded, width=65)


def reference(module, batch):
    """Nats and count from float64 log-softmax over all logits, position by position, in NumPy."""
    tokens, mask = np.array(batch["tokens"]), np.array(batch["loss_mask"])
    logits = np.array(module(batch["tokens"][:, :-1])).astype(np.float64)
    nats = []
    for row, position in zip(*np.nonzero(mask[:, 1:]), strict=True):
        scores = logits[row, position]
        top = scores.max()
        nats.append(top + np.log(np.exp(scores - top).sum()) - scores[tokens[row, position + 1]])
    return sum(nats), len(nats)


def test_the_loss_is_the_sum_of_nats_over_supervised_tokens(tuned, batch):
    positions = supervised_positions(batch)
    nats, count = reference(tuned.module, batch)
    assert positions.size == count
    assert summed_loss(tuned.family)(tuned.module, batch, positions).item() == pytest.approx(nats, rel=1e-5)


def test_its_gradient_is_that_of_the_loss_over_all_logits(tuned, batch):
    def over_all_logits(module, batch):
        logits = module(batch["tokens"][:, :-1])
        return (nn.losses.cross_entropy(logits, batch["tokens"][:, 1:]) * batch["loss_mask"][:, 1:]).sum()

    _, ours = nn.value_and_grad(tuned.module, summed_loss(tuned.family))(
        tuned.module, batch, supervised_positions(batch)
    )
    _, plain = nn.value_and_grad(tuned.module, over_all_logits)(tuned.module, batch)
    plain = dict(tree_flatten(plain))
    for name, gradient in tree_flatten(ours):
        assert mx.allclose(gradient, plain[name], rtol=1e-4, atol=1e-5), name


def test_its_gradient_is_the_slope_of_the_loss(tuned, batch):
    """Central differences along a random direction through all adapters."""
    loss, positions = summed_loss(tuned.family), supervised_positions(batch)
    start = tuned.module.trainable_parameters()
    mx.random.seed(0)
    direction = tree_map(lambda array: mx.random.normal(array.shape), start)
    _, gradient = nn.value_and_grad(tuned.module, loss)(tuned.module, batch, positions)
    slope = sum(
        (a * b).sum().item() for (_, a), (_, b) in zip(tree_flatten(gradient), tree_flatten(direction), strict=True)
    )

    def at(distance):
        tuned.module.update(tree_map(lambda value, step: value + distance * step, start, direction))
        return loss(tuned.module, batch, positions).item()

    assert (at(1e-3) - at(-1e-3)) / 2e-3 == pytest.approx(slope, rel=2e-2)


def test_padding_changes_nothing(tuned, rows):
    encoded = encode_rows(rows[:4], tuned.loaded, max_seq_length=128).rows
    losses = []
    for width in (65, 97):
        batch = tuned.family.collate(encoded, width)
        losses.append(summed_loss(tuned.family)(tuned.module, batch, supervised_positions(batch)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
