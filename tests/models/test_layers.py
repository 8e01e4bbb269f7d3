"""layers.py: which layers a gradient passes through and which are alike, on a stack whose answer is plain to see."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from tunebook.models.layers import kinds_of_layers, trained_matrices, trained_outside


class Stack(nn.Module):
    """An embedding and four frozen layers, the third of another width."""

    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(8, 4)
        self.layers = [nn.Linear(4, width) for width in (4, 4, 6, 4)]
        self.norm = nn.RMSNorm(4)
        self.freeze()


@pytest.fixture
def stack() -> Stack:
    return Stack()


def places(stack: Stack) -> list[list[int]]:
    """The kinds of layers, by their places in the stack."""
    return [
        [next(place for place, other in enumerate(stack.layers) if other is layer) for layer in kind]
        for kind in kinds_of_layers(stack)
    ]


def test_no_gradient_passes_through_the_layers_before_the_first_trained_one(stack):
    assert places(stack) == []
    stack.layers[1].unfreeze()
    assert places(stack) == [[1, 3], [2]]
    stack.layers[3].unfreeze()
    assert places(stack) == [[1, 3], [2]]


def test_a_trained_embedding_has_a_gradient_pass_through_every_layer_and_a_trained_norm_through_none(stack):
    stack.norm.unfreeze()
    assert places(stack) == []
    stack.embed_tokens.unfreeze()
    assert places(stack) == [[0, 1, 3], [2]]


def test_layers_of_other_types_are_of_another_kind(stack):
    stack.layers[0].unfreeze()
    stack.layers[1].set_dtype(mx.bfloat16)
    assert places(stack) == [[0, 3], [1], [2]]


def test_what_is_trained_outside_of_the_layers_is_named_and_what_is_inside_is_not(stack):
    stack.layers[0].unfreeze()
    stack.norm.unfreeze()
    assert list(trained_outside(stack)) == ["norm.weight"]


def test_only_the_trained_matrices_of_a_part_itself_are_its_own(stack):
    stack.layers[0].unfreeze()
    assert list(trained_matrices(stack.layers[0])) == ["weight"]  # not the bias, which is a vector
    assert trained_matrices(stack.layers[1]) == {}
    assert trained_matrices(stack) == {}
