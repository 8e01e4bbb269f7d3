import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear

from tests.makers.peaks import peak_bytes
from tunebook.fast.activations import lean_activations
from tunebook.fast.forms import forms_for
from tunebook.fast.normed_inputs import LastNormed, Normed

pytestmark = pytest.mark.float32
WIDTH, RANK = 96, 4


class Block(nn.Module):
    """A norm in front of `count` adapters, beside what goes past it."""

    def __init__(self, count=3, dtype=mx.float32, **lora):
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH, eps=1e-5)
        self.norm.weight = mx.random.normal((WIDTH,))
        self.adapters = []
        for _ in range(count):
            layer = LoRALinear.from_base(nn.Linear(WIDTH, WIDTH, bias=False), r=RANK, **lora)
            layer.lora_b = mx.random.normal((RANK, WIDTH))
            layer.linear.set_dtype(dtype)
            self.adapters.append(layer)
        self.norm.set_dtype(dtype)
        for layer in self.adapters:
            layer.linear.freeze()

    def __call__(self, x):
        normed = self.norm(x)
        return x + sum((mx.sin(layer(normed)) for layer in self.adapters), start=mx.zeros_like(x)) / 30


def gradients(block, x):
    """Of all that is trained, and of the input."""
    block.train()

    def loss(parameters, x):
        block.update(parameters)
        return (block(x) ** 2).sum()

    return mx.grad(loss, argnums=(0, 1))(block.trainable_parameters(), x)


def ours(block, x):
    with lean_activations(block, forms_for("cpu")):
        return gradients(block, x)


def farthest(found, wanted):
    """The largest distance of two trees' arrays, as a share of the wanted one's size."""
    pairs = zip(tree_flatten(found), tree_flatten(wanted), strict=True)
    return max((mx.linalg.norm(a - b) / mx.linalg.norm(b)).item() for (_, a), (_, b) in pairs)


def wide(shape):
    """Values from tiny to far out, with a few channels that are larger by far, as in trained models."""
    x = mx.random.normal(shape) * mx.exp(2 * mx.random.normal(shape))
    return x * mx.where(mx.arange(shape[-1]) % 31 == 0, 1000.0, 1.0)


@pytest.mark.parametrize("trained", [False, True], ids=["frozen norm", "trained norm"])
def test_gradients_are_those_of_an_adapter_that_keeps_its_input(trained):
    mx.random.seed(0)
    block, x = Block(), wide((2, 17, WIDTH))
    if not trained:
        block.norm.freeze()
    assert farthest(ours(block, x), gradients(block, x)) < 1e-5


def test_in_half_precision_they_are_as_near_to_float32s():
    mx.random.seed(1)
    block, x = Block(), mx.random.normal((2, 17, WIDTH))
    block.norm.freeze()
    exact = gradients(block, x.astype(mx.bfloat16).astype(mx.float32))
    for part in (block.norm, *(layer.linear for layer in block.adapters)):
        part.set_dtype(mx.bfloat16)
    plain, found = gradients(block, x.astype(mx.bfloat16)), ours(block, x.astype(mx.bfloat16))
    assert [a.dtype for _, a in tree_flatten(found)] == [a.dtype for _, a in tree_flatten(plain)]
    assert farthest(found[0], exact[0]) < 1.1 * farthest(plain[0], exact[0])


def test_under_dropout_the_input_is_what_dropout_left():
    mx.random.seed(2)
    block, x = Block(dropout=0.5), mx.random.normal((2, 17, WIDTH))
    mx.random.seed(3)
    wanted = gradients(block, x)
    mx.random.seed(3)
    assert farthest(ours(block, x), wanted) < 1e-5


def test_an_adapter_behind_something_else_keeps_to_its_own_input():
    mx.random.seed(4)

    class Scaled(Block):
        def __call__(self, x):
            normed = self.norm(x)
            return x + sum((layer(2 * normed) for layer in self.adapters), start=mx.zeros_like(x))

    block, x = Scaled(), mx.random.normal((2, 17, WIDTH))
    assert farthest(ours(block, x), gradients(block, x)) < 1e-5


def test_what_a_norm_gave_is_not_kept_for_the_adapters_behind_it():
    x = mx.random.normal((2048, WIDTH))
    one = x.nbytes

    def kept(depth):
        mx.random.seed(5)
        stack = nn.Sequential(*(Block(count=1) for _ in range(depth)))
        stack.freeze()
        stack.apply_to_modules(lambda _, part: part.unfreeze(keys=["lora_a", "lora_b"]))
        mx.eval(stack.parameters(), x)
        step = nn.value_and_grad(stack, lambda stack: stack(x).sum())
        plain = peak_bytes(lambda: step(stack))
        with lean_activations(stack, forms_for("cpu")):
            return plain, peak_bytes(lambda: step(stack))

    (plain_few, few), (plain_many, many) = kept(4), kept(12)
    assert (plain_many - plain_few) - (many - few) > 0.9 * 8 * one


def test_nothing_is_held_of_a_norm_whose_output_nobody_holds():
    normed, x = LastNormed(), mx.ones((2, 3))
    given = x * 2
    parts = Normed(x=x, shrink=x[:, :1], weight=x[0])
    normed.note(given, parts)
    assert normed.parts_of(given) is parts
    assert normed.parts_of(x) is None
    del given
    assert normed._parts is None
