"""Hybrid models in training: their gated delta layers take a chunk of tokens at a time, or MLX's kernel takes them.

mlx-lm (0.32) has a kernel for such layers that knows no gradient, and trains them with a Python loop that keeps a state
for every token. In its place stand the chunks of `gated_delta.py`, or MLX's own function (0.32.4), whose gradient has
kernels on Metal. mlx-lm's layers call `gated_delta_update` by that name. The layer objects changed here make the very
same call with the name bound to another function, so the module that defines it, and every other layer, stay as they
are.
Generation is upstream's: a call with a cache is answered as ever.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from types import FunctionType
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from ..machine import runtime
from ..machine.gpu_errors import gpu_fault
from ..models.layer_calls import Call, looked_up, replaced_calls, with_globals
from ..models.tensors import number
from .forms import Forms, forms_for
from .gated_delta import CHUNK, recomputed_chunkwise

UPDATE = "gated_delta_update"  # what the layers' calls look up
ARGUMENTS = ["q", "k", "v", "a", "b", "A_log", "dt_bias", "state", "mask"]  # of it, beside options
ENOUGH = 5e-3  # of the largest entry; products in TF32, as MLX takes them on CUDA, are good to about 1e-3

Update = Callable[..., tuple[mx.array, mx.array]]
Rule = Callable[[mx.array, mx.array, mx.array, mx.array, mx.array], Any]  # of the arguments of `recomputed_chunkwise`


def gated_delta_layers(module: nn.Module) -> list[nn.Module]:
    """The parts of `module` whose own call makes use of a `gated_delta_update`."""
    return [layer for layer in module.modules() if looked_up(layer, UPDATE) is not None]


def why_not_chunkwise(module: nn.Module) -> str | None:
    """Why some gated delta layers of `module` are left to upstream's loop, to end a sentence with; None if none is.

    Upstream's function and the one used here are compared, value and gradient, once in a process.
    """
    reasons = {_why_not(layer) for layer in gated_delta_layers(module)}
    return "; ".join(sorted(reason for reason in reasons if reason is not None)) or None


def chunkwise_layers(module: nn.Module, forms: Forms | None = None) -> AbstractContextManager[None]:
    """Have gated delta layers take a chunk of tokens at a time, where upstream loops over them, until the block ends.

    Or MLX's kernel, where `forms` say so and it gives the same. Layers that `why_not_chunkwise` gives a reason for stay
    as they are.
    """
    layers = [layer for layer in gated_delta_layers(module) if _why_not(layer) is None]
    return replaced_calls(layers, partial(_with_rule, delta=(forms or forms_for()).delta))


def _why_not(layer: nn.Module) -> str | None:
    if "A_log" not in layer or "dt_bias" not in layer or layer["A_log"].size != layer["dt_bias"].size:
        return "their decay is not one number for each head, and no other is known here"
    return _differs(looked_up(layer, UPDATE), recomputed_chunkwise)


def _with_rule(plain: Call, *, delta: str) -> Call:
    """`plain`, run with the name `gated_delta_update` for another function; as it is where a cache is given."""
    own = cast("FunctionType", plain).__globals__[UPDATE]
    rule = _by_kernel if delta == "kernel" and _has_kernel(own) else recomputed_chunkwise
    renamed = with_globals(plain, {UPDATE: _with(rule, own)})

    def call(layer: nn.Module, x: mx.array, mask: mx.array | None = None, cache: Any = None, **options: Any) -> Any:
        return (renamed if cache is None else plain)(layer, x, mask, cache, **options)

    return call


def _by_kernel(q: mx.array, k: mx.array, v: mx.array, log_decay: mx.array, beta: mx.array) -> tuple[mx.array, mx.array]:
    """What `recomputed_chunkwise` gives, of MLX's own function."""
    y, state = mx.fast.gated_delta_update(q, k, v, mx.exp(log_decay), beta)
    return y.astype(q.dtype), state


def _has_kernel(own: Update) -> bool:
    """Whether MLX's own function gives here what upstream's does. A GPU that fails is raised: it says nothing of it."""
    try:
        return _differs(own, _by_kernel) is None
    except RuntimeError as error:  # a GPU for which MLX has no such kernel
        if gpu_fault(error) is not None:
            raise
        return False


def _with(rule: Rule, plain: Update) -> Update:
    """`plain` with `rule` in the place of its loop; with a kernel, a state, a mask or an unknown option it answers."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(plain).parameters.items()}

    def update(
        q: mx.array,
        k: mx.array,
        v: mx.array,
        a: mx.array,
        b: mx.array,
        A_log: mx.array,
        dt_bias: mx.array,
        state: mx.array | None = None,
        mask: mx.array | None = None,
        *,
        use_kernel: bool = True,
        allow_neg_eigval: bool = False,
        **others: Any,
    ) -> tuple[mx.array, mx.array]:
        has_kernel = use_kernel and runtime.backend() == "metal"
        is_plain_case = state is None and mask is None and all(others[name] is defaults[name] for name in others)
        if has_kernel or not is_plain_case:
            options = {"allow_neg_eigval": True, **others} if allow_neg_eigval else others
            return plain(q, k, v, a, b, A_log, dt_bias, state, mask, use_kernel=use_kernel, **options)
        beta = mx.sigmoid(b) * (2.0 if allow_neg_eigval else 1.0)
        log_decay = -mx.exp(A_log.astype(mx.float32)) * nn.softplus(a + dt_bias)  # Mamba 2's, arXiv 2405.21060
        return cast("tuple[mx.array, mx.array]", rule(q, k, v, log_decay, beta))

    return update


@lru_cache(maxsize=8)
def _differs(plain: Update, rule: Rule) -> str | None:
    """How upstream's function is not what stands in for it, over a chunk and a part of one; None if it is the same."""
    parameters = list(inspect.signature(plain).parameters)
    if parameters[: len(ARGUMENTS)] != ARGUMENTS or "use_kernel" not in parameters:
        return f"their {UPDATE} takes ({', '.join(parameters)}), which is not what is known here"
    inputs, cotangents = _probe()

    def taken(update: Update) -> list[mx.array]:
        outputs, gradients = mx.vjp(lambda *inputs: list(update(*inputs, use_kernel=False)), inputs, cotangents)
        return [*outputs, *gradients]

    for found, wanted in zip(taken(_with(rule, plain)), taken(plain), strict=True):
        largest = number(mx.abs(wanted).max())
        if found.shape != wanted.shape or not mx.allclose(found, wanted, rtol=0, atol=ENOUGH * largest):
            return "taken in chunks they differ from their loop on this machine, in value or gradient"
    return None


def _probe() -> tuple[list[mx.array], list[mx.array]]:
    """(q, k, v, a, b, A_log, dt_bias of `CHUNK` + 16 tokens, gradients for y and the state behind them); float32."""
    tokens, keys, values, width = (
        CHUNK + 16,
        1,
        2,
        128,
    )  # the width of all released models; for others MLX has no kernel
    shapes = [
        *[(1, tokens, keys, width)] * 2,  # q, k
        (1, tokens, values, width),  # v
        *[(1, tokens, values)] * 2,  # a, b
        *[(values,)] * 2,  # A_log, dt_bias
        (1, tokens, values, width),  # like y
        (1, values, width, width),  # like the state
    ]
    # With a key of its own, so that the run's random numbers stay what they were.
    seeds = mx.random.split(mx.random.key(0), len(shapes))
    q, k, *others = (mx.random.normal(shape, key=seed) for shape, seed in zip(shapes, seeds, strict=True))
    q, k = (x / mx.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    return [q, k, *others[:-2]], others[-2:]
