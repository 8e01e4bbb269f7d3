"""How near a training step comes to what this machine's matrix products allow.

    python bench/roofline.py [--shape smollm2 | gemma3] [--rows 2] [--tokens 353] [--share 0.25] [--json]

The matrix products of a LoRA step are counted from the shapes of the weights, of the adapters and of attention: a
frozen matrix is multiplied twice (forward, and back to its input), a trained one three times. Their number by the
seconds of the trainer's own step is the achieved rate; the machine's is that of large products in the same type,
measured before and after. What is missing to 100 % is element-wise work (exponentials above all), small products and
waiting.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from shapes import SHAPES, write_folder  # noqa: E402

from tunebook import FastModel, TrainingConfig  # noqa: E402
from tunebook.data.encoded import Encoded  # noqa: E402
from tunebook.machine import runtime  # noqa: E402
from tunebook.train.step import Stepper  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--rows", type=int, default=2, help="rows of a batch")
    parser.add_argument("--tokens", type=int, default=353, help="tokens of a row")
    parser.add_argument("--share", type=float, default=0.25, help="of them supervised, at the end of the row")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        model, _ = FastModel.from_pretrained(
            str(write_folder(Path(folder) / "model", options.shape)), max_seq_length=options.tokens
        )
    FastModel.get_peft_model(model, r=16)
    numbers = np.random.default_rng(0).integers(10, 1000, (options.rows, options.tokens)).astype(np.int32)
    mask = np.arange(options.tokens) >= options.tokens * (1 - options.share)
    rows = [Encoded(tokens=row, loss_mask=mask) for row in numbers]
    before = product_rate()
    seconds = step_seconds(model, rows, options.steps)
    possible = max(before, product_rate())
    work = operations(model.module, SHAPES[options.shape], rows)
    achieved = work / seconds
    found = {
        "step_seconds": round(seconds, 3),
        "step_gflop": round(work / 1e9, 1),
        "achieved_gflops": round(achieved / 1e9, 1),
        "product_gflops": round(possible / 1e9, 1),
        "share": round(achieved / possible, 3),
    }
    if options.json:
        print(json.dumps({**vars(options), "processor": runtime.device_name(), **found}))
        return
    print(f"{options.shape}, {options.rows} rows of {options.tokens} tokens; {runtime.device_name()}")
    print(f"a step:       {found['step_gflop']:8.1f} GFLOP of products in {found['step_seconds']:.2f} s")
    print(f"achieved:     {found['achieved_gflops']:8.1f} GFLOP/s")
    print(f"the machine's:{found['product_gflops']:8.1f} GFLOP/s")
    print(f"share:        {found['share']:8.0%}")


def step_seconds(model: FastModel, rows: list[Encoded], steps: int) -> float:
    """The median step of the trainer's own stepper, after one that is not counted."""
    width = len(rows[0].tokens)
    stepper = Stepper(model.loaded, TrainingConfig(), rows, total_steps=steps + 1, max_seq_length=width)
    seconds = []
    with runtime.memory_for_training():
        for step in range(1, steps + 2):
            stepper.begin(step)
            stepper.add(rows, alone=True)
            seconds.append(stepper.finish().seconds)
    return statistics.median(seconds[1:])


def operations(module, shape: dict, rows: list[Encoded]) -> float:
    """Multiplications and additions of a step's matrix products."""
    tokens = len(rows) * (len(rows[0].tokens) - 1)
    supervised = sum(row.supervised_tokens for row in rows)
    trained = dict(tree_flatten(module.trainable_parameters()))
    total = 0.0
    for name, weight in tree_flatten(module.parameters()):
        if weight.ndim != 2:
            continue
        places = supervised if "embed_tokens" in name or "lm_head" in name else tokens
        total += 2 * weight.size * places * (3 if name in trained else 2)
    # Scores and their sum of values, forward and twice as much backward; half of them are never needed.
    length, width = len(rows[0].tokens) - 1, shape.get("head_dim", shape["hidden_size"] // shape["num_attention_heads"])
    attention = 2 * 2 * shape["num_attention_heads"] * width * length**2 / 2
    return total + 3 * len(rows) * shape["num_hidden_layers"] * attention


def product_rate(size: int = 2048, repeats: int = 5) -> float:
    """Operations a second of a large matrix product in float32."""
    left, right = mx.random.normal((size, size)), mx.random.normal((size, size))
    mx.eval(left, right)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        mx.eval(left @ right)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


if __name__ == "__main__":
    main()
