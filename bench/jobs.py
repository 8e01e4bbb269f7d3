"""How fast a run in a process of its own is, against the same run in the kernel, and whether it is the same run.

    python bench/jobs.py [--shape smollm2 | gemma3] [--steps 12] [--rounds 3] [--json]

The same rows and random weights are trained by `trainer.train()` and by `trainer.start()`, in turns, each in a fresh
process that plays the kernel. Compared are the medians of the seconds between two steps, first steps left out, and all
losses and weights, which have to be the same bit for bit. The run in a process of its own may take 1/0.98 of the time;
how long it takes until its first step, where a process is started and a model loaded, is printed beside it.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

LEAST = 0.98  # of the throughput in the kernel
WARMUP = 2  # steps that are not counted
MODES = ("train", "start")


def main() -> None:
    """Measure and print; exit code 1 where the runs differ, or one is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="smollm2")
    parser.add_argument("--tokens", type=int, default=256, help="of a row (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="of each run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--as", dest="mode", choices=MODES, help=argparse.SUPPRESS)  # how it runs itself
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.mode is not None:
        print(json.dumps(_kernel(asked)))
        return
    with tempfile.TemporaryDirectory() as folder:
        answers = {mode: [] for mode in MODES}
        for number in range(asked.rounds):
            for mode in MODES if number % 2 == 0 else MODES[::-1]:
                answers[mode].append(_asked(asked, mode, folder))
    _told(asked, answers)


def _asked(asked: argparse.Namespace, mode: str, folder: str) -> dict:
    options = ["--shape", asked.shape, "--tokens", str(asked.tokens), "--steps", str(asked.steps)]
    command = [sys.executable, __file__, *options, "--as", mode, "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{mode} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _told(asked: argparse.Namespace, answers: dict[str, list[dict]]) -> None:
    seconds = {mode: statistics.median(gap for one in answers[mode] for gap in one["seconds"]) for mode in MODES}
    same = len({(tuple(one["losses"]), one["weights"]) for mode in MODES for one in answers[mode]}) == 1
    share = seconds["train"] / seconds["start"]
    first = {mode: statistics.median(one["first"] for one in answers[mode]) for mode in MODES}
    if asked.json:
        print(json.dumps({"seconds": seconds, "first_step": first, "share": share, "same": same}, indent=2))
    else:
        for mode in MODES:
            print(f"trainer.{mode}(): {seconds[mode]:.3f} s a step, the first after {first[mode]:.1f} s")
        print(
            f"throughput: {share:.3f} of that in the kernel; losses and weights are {'the same' if same else 'OTHERS'}"
        )
    sys.exit(0 if same and share >= LEAST else 1)


def _kernel(asked: argparse.Namespace) -> dict:
    """One run, as a notebook would start it."""
    import tunebook  # before MLX: it loads the fast BLAS

    assert tunebook
    import numpy as np
    from mlx.utils import tree_flatten
    from shapes import write_folder

    from tunebook import FastModel, Trainer, TrainingConfig

    place = Path(asked.folder) / asked.shape
    if not place.exists():
        write_folder(place, asked.shape)
    model, tokenizer = FastModel.from_pretrained(place, max_seq_length=asked.tokens)
    FastModel.get_peft_model(model, r=16, lora_alpha=16, lora_dropout=0.1)
    random = np.random.default_rng(0)
    rows = [{"input_ids": random.integers(10, 1000, asked.tokens).tolist()} for _ in range(16)]
    rows = [{**row, "labels": row["input_ids"]} for row in rows]
    args = TrainingConfig(
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        max_steps=asked.steps,
        hold_out=0,
        output_dir=str(Path(asked.folder) / "runs"),
    )
    trainer = Trainer(model, tokenizer, train_dataset=rows, args=args)
    trainer.subscribe(lambda _: None, shows_progress=True)
    began = time.time()
    result = trainer.train() if asked.mode == "train" else trainer.start(again=True).result()
    took = time.time() - began
    elapsed = [step.elapsed for step in result.steps]
    seen = hashlib.sha256()
    for name, array in tree_flatten(model.module.trainable_parameters()):
        seen.update(name.encode() + np.array(array).tobytes())
    return {
        "seconds": [after - before for before, after in pairwise(elapsed)][WARMUP:],
        "first": took - elapsed[-1] + elapsed[0],
        "losses": [step.loss for step in result.steps],
        "weights": seen.hexdigest(),
    }


if __name__ == "__main__":
    main()
