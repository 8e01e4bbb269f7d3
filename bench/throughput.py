"""Supervised tokens per second and peak memory of LoRA training, against mlx-lm and unsloth-zoo.

    python bench/peers.py                     # once: the environment the peers need
    python bench/throughput.py [--shape smollm2 | gemma3] [--rows 2] [--tokens 353] [--share 0.25] [--json]

Every trainer gets the same random weights in float32, the same rows of token ids, the same LoRA layout and the same
BLAS, in fresh processes that take turns: one round after the other, with steps before those that are counted. The first
step's losses have to agree, or nothing is printed. Memory is the highest beyond weights and adapters.

mlx-tune 0.6 trains with mlx-lm's `train`; what is said of mlx-lm's steps is said of its.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import numpy as np  # noqa: E402
import peers  # noqa: E402
from shapes import SHAPES, write_folder  # noqa: E402
from workers.job import Answer, Job  # noqa: E402

from tunebook.machine import runtime  # noqa: E402

HERE = Path(__file__).parent
TRAINERS = {"tunebook": "workers.ours", "mlx-lm": "workers.mlx_lm", "unsloth-zoo": "workers.unsloth"}


class WorkerFailed(RuntimeError):
    """A worker gave no answer; the message holds its last words."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--rows", type=int, default=2, help="rows of a batch")
    parser.add_argument("--tokens", type=int, default=353, help="tokens of a row")
    parser.add_argument("--share", type=float, default=0.25, help="of them supervised, at the end of the row")
    parser.add_argument("--steps", type=int, default=3, help="steps that are counted, of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, in all of them")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not peers.PYTHON.exists():
        sys.exit(f"The peers are not installed. Run: python {HERE / 'peers.py'}")
    with tempfile.TemporaryDirectory() as folder:
        answers = measured(options, Path(folder))
    found = {
        name: {
            "tokens_per_second": round(supervised(options) / statistics.median(second_list(rounds)), 2),
            "gb": round(max(one.gb for one in rounds), 3),
        }
        for name, rounds in answers.items()
    }
    if options.json:
        print(json.dumps({**vars(options), "processor": runtime.device_name(), "found": found}))
        return
    print(
        f"{options.shape}, {options.rows} rows of {options.tokens} tokens, {supervised(options)} supervised; "
        f"{runtime.device_name()}, {os.cpu_count()} cores"
    )
    print(f"{'':>12}  supervised tokens/s      GB   tunebook's speed  tunebook's memory")
    ours = found["tunebook"]
    for name, figures in found.items():
        speed = ours["tokens_per_second"] / figures["tokens_per_second"]
        memory = ours["gb"] / figures["gb"]
        print(
            f"{name:>12}  {figures['tokens_per_second']:19.1f}  {figures['gb']:6.2f}  {speed:15.2f}x  {memory:16.2f}x"
        )


def measured(options: argparse.Namespace, folder: Path) -> dict[str, list[Answer]]:
    """The answers of every trainer, a round after the other."""
    numbers = np.random.default_rng(0).integers(10, SHAPES[options.shape]["vocab_size"], (options.rows, options.tokens))
    job = Job(
        folder=str(write_folder(folder / "model", options.shape)),
        rows=numbers.tolist(),
        answer=options.tokens - supervised(options) // options.rows,
        steps=options.steps,
        warmup=2,
        checkpointing=options.checkpointing,
    )
    answers = defaultdict(list)
    for number in range(options.rounds):
        for name in list(TRAINERS)[:: 1 if number % 2 == 0 else -1]:
            answers[name].append(answered(TRAINERS[name], job, folder))
            print(f"round {number + 1} of {options.rounds}: {name} {answers[name][-1].seconds}", file=sys.stderr)
    first = {name: rounds[0].losses[0] for name, rounds in answers.items()}
    if not np.allclose(list(first.values()), first["tunebook"], rtol=1e-3):
        sys.exit(f"The trainers did not do the same work: the losses of their first step are {first}.")
    return {name: answers[name] for name in TRAINERS}


def answered(worker: str, job: Job, folder: Path, python: Path = peers.PYTHON) -> Answer:
    """What a worker answers, in a process of its own; `folder` is for the job's file."""
    return Answer(**said(worker, asdict(job), folder, python))


def said(worker: str, job: dict[str, Any], folder: Path, python: Path = peers.PYTHON) -> dict[str, Any]:
    """The last line a worker prints when it is given `job`, as JSON; in a process of its own."""
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    kit = HERE.parent / "kit"
    environment = os.environ | {"PYTHONPATH": f"{HERE}:{kit}", "PYTHONWARNINGS": "ignore", "TUNEBOOK_UI": "off"}
    done = subprocess.run(
        [str(python), "-m", worker, str(path)], capture_output=True, text=True, env=environment, cwd=folder
    )
    if done.returncode:
        raise WorkerFailed(f"{worker} ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def supervised(options: argparse.Namespace) -> int:
    """Tokens of a batch that enter the loss."""
    return options.rows * round(options.share * (options.tokens - 1))


def second_list(rounds: list[Answer]) -> list[float]:
    return [second for one in rounds for second in one.seconds]


if __name__ == "__main__":
    main()
