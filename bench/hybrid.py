"""What a gated delta layer costs in training, taken in chunks and with mlx-lm's loop over tokens.

    python bench/hybrid.py [--tokens 128 256 512 1024 2048] [--heads 8] [--repeats 3] [--json]

Runs forward and backward of the gated delta rule alone, and of a whole layer of Qwen3.5-0.8B's width around it, as
Tunebook's trainer takes it: its projections cost the same in both forms. Every case has a process of its own. Prints
the median seconds, the peak memory beyond weights and input, and how the two forms compare.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
from mlx_lm.models.gated_delta import gated_delta_update  # noqa: E402
from mlx_lm.models.qwen3_5 import GatedDeltaNet, TextModelArgs  # noqa: E402

from tunebook.fast.activations import lean_activations  # noqa: E402
from tunebook.fast.gated_delta_layers import chunkwise_layers, why_not_chunkwise  # noqa: E402

WIDTH = 1024  # of the layer's input
CHANNELS = 128  # of a head
FORMS = {"loop": (), "chunks": (chunkwise_layers, lean_activations)}
PARTS = ("rule", "layer")


@dataclass(frozen=True)
class Result:
    """Forward and backward of one row."""

    part: str  # of PARTS
    form: str  # of FORMS
    tokens: int
    seconds: float
    peak_gb: float  # 1e9 bytes beyond weights and input


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--heads", type=int, default=8, help="of 128 channels; the loop takes 0.27 MB a head and token")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no table")
    parser.add_argument("--case", nargs=2, metavar=("PART", "FORM"), help="measure this alone, in this process")
    options = parser.parse_args()
    cases = [(part, tokens, form) for part in PARTS for tokens in options.tokens for form in FORMS]
    if options.case is not None:
        part, form = options.case
        results = [measured(part, form, tokens, options.heads, options.repeats) for tokens in options.tokens]
    else:
        results = [in_its_own_process(part, form, tokens, options) for part, tokens, form in cases]
    if options.json:
        print(json.dumps({"heads": options.heads, "results": [asdict(result) for result in results]}))
    else:
        print_table(results)


def print_table(results: list[Result]) -> None:
    """One line for each case."""
    print(f"{'':>5} {'tokens':>6} {'form':>6} {'seconds':>8} {'ms/token':>9} {'GB':>7} {'MB/token':>9}  speed  memory")
    loops = {(result.part, result.tokens): result for result in results if result.form == "loop"}
    for result in results:
        line = (
            f"{result.part:>5} {result.tokens:6} {result.form:>6} {result.seconds:8.3f} "
            f"{1000 * result.seconds / result.tokens:9.3f} {result.peak_gb:7.3f} "
            f"{1000 * result.peak_gb / result.tokens:9.3f}"
        )
        loop = loops.get((result.part, result.tokens))
        if result.form != "loop" and loop is not None:
            line += f" {loop.seconds / result.seconds:5.1f}x {result.peak_gb / loop.peak_gb:6.3f}x"
        print(line)


def in_its_own_process(part: str, form: str, tokens: int, options: argparse.Namespace) -> Result:
    """One case, with nothing of another in memory."""
    command = [sys.executable, __file__, "--json", "--case", part, form, "--tokens", str(tokens)]
    command += ["--heads", str(options.heads), "--repeats", str(options.repeats)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    [result] = json.loads(output)["results"]
    return Result(**result)


def measured(part: str, form: str, tokens: int, heads: int, repeats: int) -> Result:
    """One case, here. Exits where the form was not proven the same as the loop."""
    mx.random.seed(0)
    layer = Rule(heads) if part == "rule" else whole_layer(heads)
    if (reason := why_not_chunkwise(layer)) is not None:
        raise SystemExit(f"The chunkwise form is not used on this machine: {reason}.")
    layer.train()
    x = mx.random.normal((1, tokens, heads, 3 * CHANNELS + 2) if part == "rule" else (1, tokens, WIDTH))
    weights = layer.trainable_parameters()
    mx.eval(weights, x)

    def total(weights: Any, x: mx.array) -> mx.array:
        layer.update(weights)
        return (layer(x) ** 2).sum()

    def take() -> float:
        began = time.perf_counter()
        mx.eval(mx.value_and_grad(total, argnums=(0, 1))(weights, x))
        layer.update(weights)
        return time.perf_counter() - began

    with ExitStack() as forms:
        for change in FORMS[form]:
            forms.enter_context(change(layer))
        take()  # to warm up
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        seconds = statistics.median(take() for _ in range(repeats))
    peak = mx.get_peak_memory() - before
    return Result(part=part, form=form, tokens=tokens, seconds=seconds, peak_gb=peak / 1e9)


class Rule(nn.Module):
    """A layer that is nothing but the gated delta rule: x (B, T, heads, 3 * 128 + 2) holds q, k, v and both gates."""

    def __init__(self, heads: int):
        super().__init__()
        self.A_log, self.dt_bias = mx.zeros(heads), mx.zeros(heads)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
        q, k, v, gates = mx.split(x, [CHANNELS, 2 * CHANNELS, 3 * CHANNELS], axis=-1)
        k = k / mx.linalg.norm(k, axis=-1, keepdims=True)
        a, b = gates[..., 0], gates[..., 1]
        y, _ = gated_delta_update(q, k, v, a, b, self.A_log, self.dt_bias, cache, mask, use_kernel=not self.training)
        return y


def whole_layer(heads: int) -> nn.Module:
    """mlx-lm's layer, of random weights."""
    settings = TextModelArgs(
        hidden_size=WIDTH,
        linear_num_value_heads=heads,
        linear_num_key_heads=heads,
        linear_key_head_dim=CHANNELS,
        linear_value_head_dim=CHANNELS,
    )
    return GatedDeltaNet(settings)


if __name__ == "__main__":
    main()
