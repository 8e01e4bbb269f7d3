"""How long a run's self-test takes before its first step, and what it comes to.

    python bench/self_test.py [--shape smollm2] [--rows 2] [--tokens 512] [--json]

A model of the shape with random weights and adapters of rank 16 is tested on made-up rows as a run tests it on its own
first micro-batch; nothing that was kept is looked at. On the CPU the usual forms are proven; on a GPU others are timed
beside them. Prints the seconds, and each form with its distance from the plain pass, its time and its memory.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import numpy as np  # noqa: E402
from shapes import SHAPES, write_folder  # noqa: E402

from tunebook import FastModel, TrainingConfig  # noqa: E402
from tunebook.data.encoded import Encoded  # noqa: E402
from tunebook.train.passes.self_test import Settled, settle  # noqa: E402
from tunebook.train.step import Stepper  # noqa: E402


def main() -> None:
    """Test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--rows", type=int, default=2, help="of the micro-batch")
    parser.add_argument("--tokens", type=int, default=512, help="of each row")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no table")
    options = parser.parse_args()
    seconds, settled = tested(options.shape, options.rows, options.tokens)
    if options.json:
        print(json.dumps({"seconds": seconds, **asdict(settled)}))
        return
    print(f"{seconds:.1f} s; {settled.timed_tokens or 'no'} tokens were timed")
    for one in settled.tried:
        time_taken = "" if one.seconds is None else f"{one.seconds:8.3f} s {one.peak_gb:6.2f} GB"
        print(f"{one.what:<34} {one.distance or 0:9.1e} {time_taken} {one.why_not}")


def tested(shape: str, rows: int, tokens: int) -> tuple[float, Settled]:
    """(seconds, what was settled)."""
    drawn = np.random.default_rng(0)
    given = [
        Encoded(tokens=drawn.integers(1, 9000, size=tokens, dtype=np.int32), loss_mask=np.ones(tokens, dtype=bool))
        for _ in range(rows)
    ]
    with tempfile.TemporaryDirectory() as folder:
        model, _ = FastModel.from_pretrained(str(write_folder(Path(folder) / shape, shape)), max_seq_length=tokens)
        FastModel.get_peft_model(model, r=16)
        stepper = Stepper(model.loaded, TrainingConfig(), given, total_steps=10, max_seq_length=tokens)
        began = time.perf_counter()
        testing = settle(model.loaded, stepper.forms, given, stepper.pass_in)
        while True:
            try:
                next(testing)
            except StopIteration as end:
                return time.perf_counter() - began, end.value


if __name__ == "__main__":
    main()
