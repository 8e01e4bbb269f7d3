"""What MLX's CPU build takes for an element, and what powers, two cores, shifted products and blocks save.

    python bench/elementwise.py [--repeats 9] [--json]

The arrays are those of a batch of two rows of 352 tokens in SmolLM2 135M, causal attention is that of one of them. The
convolution is that of a layer of Qwen3.5-0.8B's width over 1,024 tokens, the window of 512 that of a head of Gemma 3
270M over 2,048. Convolutions and attention are taken forward and backward. Each is the fastest of so many turns, taken
one after the other.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
from mlx_lm.models.base import create_causal_mask  # noqa: E402

from tunebook.fast.blockwise_attention import attention_in_blocks  # noqa: E402
from tunebook.fast.exponentials import exponential  # noqa: E402
from tunebook.fast.short_conv import shifted_convolutions  # noqa: E402
from tunebook.fast.two_cores import in_halves  # noqa: E402
from tunebook.machine import runtime  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wide = mx.random.normal((2, 352, 1536))
    layer, causal, window = convolution(), attention(352, 64, None), attention(2048, 256, 512)
    mx.eval(wide, layer.parameters())
    seconds = fastest(
        {
            "a sum": lambda: wide + wide,
            "an exponential": lambda: mx.exp(wide),
            "an exponential, ours": lambda: exponential(wide),
            "an exponential, ours, in halves": lambda: in_halves(exponential, wide),
            "a short convolution": partial(convolved, layer),
            "a short convolution, shifted": partial(shifted, layer),
            "causal attention": causal[0],
            "causal attention, in blocks": causal[1],
            "a window": window[0],
            "a window, in blocks": window[1],
        },
        options.repeats,
    )
    if options.json:
        print(json.dumps({"processor": runtime.device_name(), "cores": runtime.cores(), "seconds": seconds}))
        return
    print(f"{runtime.device_name()}, {runtime.cores()} cores")
    for name, second in seconds.items():
        per_element = f"{1e9 * second / wide.size:8.2f} ns an element" if name.startswith(("a sum", "an exp")) else ""
        print(f"{name:>32} {1e3 * second:9.2f} ms {per_element}")


def fastest(works: dict[str, Callable[[], mx.array]], repeats: int) -> dict[str, float]:
    """The least seconds of each, taken in turn, after a turn that is not counted."""
    found = {name: float("inf") for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            began = time.perf_counter()
            mx.eval(work())
            if turn:
                found[name] = min(found[name], time.perf_counter() - began)
    return found


def convolution(channels: int = 3072) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, 4, groups=channels, bias=False)


def convolved(layer: nn.Conv1d) -> mx.array:
    """The gradient of the convolution for its input and its weights."""
    x = mx.ones((1, 1027, layer.weight.shape[0]))

    def total(weight: mx.array, x: mx.array) -> mx.array:
        layer.weight = weight
        return (layer(x) ** 2).sum()

    weight = layer.weight
    found = mx.grad(total, argnums=(0, 1))(weight, x)
    layer.weight = weight
    return found


def shifted(layer: nn.Conv1d) -> mx.array:
    with shifted_convolutions(layer):
        return convolved(layer)


def attention(tokens: int, width: int, window: int | None) -> tuple[Callable[[], mx.array], Callable[[], mx.array]]:
    """(attention in one, the same in blocks) of 9 heads on 3 of keys, or of one with a window; each with gradients."""
    heads, shared = (9, 3) if window is None else (1, 1)
    inputs = [mx.random.normal((1, count, tokens, width)) for count in (heads, shared, shared)]
    mask = None if window is None else create_causal_mask(tokens, window_size=window)
    mx.eval(inputs, [] if mask is None else mask)
    rows = 64 if window is None else 128

    def whole(*inputs: mx.array) -> mx.array:
        given = "causal" if mask is None else mask
        return mx.fast.scaled_dot_product_attention(*inputs, scale=1 / 16, mask=given).sum()

    def blocks(*inputs: mx.array) -> mx.array:
        return attention_in_blocks(*inputs, scale=1 / 16, rows=rows, recomputed=False, mask=mask).sum()

    def gradients(function: Callable[..., mx.array]) -> Callable[[], mx.array]:
        return lambda: mx.grad(function, argnums=(0, 1, 2))(*inputs)

    return gradients(whole), gradients(blocks)


if __name__ == "__main__":
    main()
