"""What several processes exchange and take for a step here, and what that would come to on Macs.

    python bench/scaling.py [--ranks 1 2 3] [--adapters 4 16 64] [--steps 6] [--json]
    python bench/scaling.py --model

The first trains a model of SmolLM2's width and four of its layers, in one process and in several on this machine, with
the same rows and the same global batch, one setting after another. Prints for each the bytes of the gradients, what a
process sends of them, the median seconds of a step, the share that went into the exchange, and what the first process
waited. On one machine processes share its cores: what is measured is the cost of the exchange, not a speed-up.

The second prints, by the formula in `efficiency`, which part of n machines' speed n machines would have, with its
assumptions. Nobody has measured that; the first command does on a Mac.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import mlx.core as mx  # noqa: E402

from tunebook import FastModel, Trainer, TrainingConfig  # noqa: E402
from tunebook.events import RanksEvent, StepEvent  # noqa: E402
from tunebook.models.tensors import flat  # noqa: E402
from tunebook.parity.speed.random_model import SMOLLM2, random_model  # noqa: E402
from tunebook.runs import read_events  # noqa: E402
from tunebook.train.ranks.group import BUCKET_BYTES  # noqa: E402
from tunebook.train.ranks.launch import environments  # noqa: E402

LAYERS = 4
BATCH = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 6}
TOKENS = 120  # of a row, beside 30


@dataclass(frozen=True)
class Measured:
    """One setting."""

    ranks: int
    adapter: int  # R
    gradient_mb: float  # 1e6 bytes that are added up in a step
    sent_mb: float  # that a process sends of them in a ring
    step_seconds: float
    exchanging: float  # share of the time
    waiting: float  # of the first process


@dataclass(frozen=True)
class Link:
    """An assumption."""

    name: str
    gb_per_second: float  # one way, of what a program gets
    seconds: float  # for a message to arrive


@dataclass(frozen=True)
class Task:
    """An assumption: what one machine takes for a step, and what is exchanged."""

    name: str
    seconds: float
    gradient_gb: float


LINKS = [
    Link("Ethernet, 1 Gbit", 0.11, 2e-4),
    Link("Ethernet, 10 Gbit", 1.1, 1e-4),
    Link("Thunderbolt 4, TCP", 2.0, 1e-4),
    Link("Thunderbolt 5, RDMA", 6.0, 1e-5),
]
# Seconds are 4 FLOP (adapters) or 6 (all weights) for a parameter and a token, at 12 TFLOP/s: about what an M4 Max is
# said to sustain in half precision. An M4 has a quarter of that, and its steps hide four times the exchange.
TERAFLOPS = 12.0
TOKENS = 8192  # of a step of all machines together


def task(name: str, parameters: float, trained: float) -> Task:
    """A step of TOKENS on a model with so many `parameters`, of which `trained` are, their gradients in float32."""
    flops = (6 if trained == parameters else 4) * parameters * TOKENS
    return Task(name, flops / (TERAFLOPS * 1e12), 4 * trained / 1e9)


TASKS = [
    task("SmolLM2 135M, adapters of rank 16", 135e6, 4.9e6),
    task("Llama 3.2 3B, adapters of rank 16", 3.2e9, 24.3e6),
    task("Llama 3.1 8B, adapters of rank 16", 8.0e9, 41.9e6),
    task("Llama 3.2 3B, all weights", 3.2e9, 3.2e9),
]


def efficiency(work: Task, link: Link, machines: int) -> float:
    """Speed of n machines over n times that of one.

    A step is the work divided by n, and then a ring's all-reduce: each machine sends 2 (n - 1) / n of the gradients, in
    buckets of 2 (n - 1) messages. Nothing of it hides behind the work, shares are taken to be even, and the update,
    which every machine makes of the whole, is left out.
    """
    buckets = max(1.0, work.gradient_gb * 1e9 / BUCKET_BYTES)
    sent = 2 * (machines - 1) / machines * work.gradient_gb / link.gb_per_second
    exchange = sent + buckets * 2 * (machines - 1) * link.seconds
    return work.seconds / (machines * (work.seconds / machines + exchange))


def measured(ranks: int, adapter: int, steps: int, folder: Path) -> Measured:
    """Train in so many processes, and read the run's log."""
    out = folder / f"{ranks} of {adapter}"
    hosts = environments(ranks, folder / "hosts.json") if ranks > 1 else [{}]
    command = [sys.executable, __file__, "--child", str(folder / "model"), str(out), str(adapter), str(steps)]
    processes = [subprocess.Popen(command, env={**os.environ, **host}, stdout=subprocess.DEVNULL) for host in hosts]
    if any(process.wait() for process in processes):
        raise SystemExit(f"A process of {ranks} failed.")
    events = list(read_events(out / "run-001"))
    taken = [event.elapsed for event in events if isinstance(event, StepEvent)]
    lanes = [event for event in events if isinstance(event, RanksEvent)]
    size = json.loads((out / "trained.json").read_text())
    gradient = 4 * size / 1e6
    return Measured(
        ranks=ranks,
        adapter=adapter,
        gradient_mb=gradient,
        sent_mb=2 * (ranks - 1) / ranks * gradient,
        step_seconds=statistics.median(later - earlier for earlier, later in pairwise(taken)),
        exchanging=statistics.mean(lane.exchanging[0] for lane in lanes) if lanes else 0.0,
        waiting=statistics.mean(lane.waiting[0] for lane in lanes) if lanes else 0.0,
    )


def child(model: str, out: str, adapter: str, steps: str) -> None:
    """One process of a run; every one of them makes the same."""
    loaded, _ = FastModel.from_pretrained(model, max_seq_length=256)
    FastModel.get_peft_model(loaded, r=int(adapter), lora_alpha=int(adapter))
    ids = [[1 + (7 * row + place) % 900 for place in range(30 + 13 * row % TOKENS)] for row in range(36)]
    rows = [{"input_ids": row, "labels": row} for row in ids]
    settings = {**BATCH, "max_steps": int(steps), "output_dir": out, "save_steps": None, "hold_out": 0.0}
    trainer = Trainer(loaded, train_dataset=rows, args=TrainingConfig(**settings))
    trainer.subscribe(lambda _: None)
    result = trainer.train()
    if result.run_folder is not None:
        trained = sum(value.size for value in flat(loaded.module.trainable_parameters()).values())
        (Path(out) / "trained.json").write_text(json.dumps(trained))


def main() -> None:
    """Measure, or print the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--adapters", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(*asked.child)
        return
    if asked.model:
        print_model(as_json=asked.json)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        random_model(folder / "model", SMOLLM2 | {"num_hidden_layers": LAYERS}, mx.float32)
        found = [measured(ranks, adapter, asked.steps, folder) for adapter in asked.adapters for ranks in asked.ranks]
    if asked.json:
        print(json.dumps([asdict(each) for each in found]))
        return
    print("| adapters of rank | processes | gradients, MB | sent by each, MB | step, s | exchanging | waiting |")
    print("|---|---|---|---|---|---|---|")
    for each in found:
        print(
            f"| {each.adapter} | {each.ranks} | {each.gradient_mb:.1f} | {each.sent_mb:.1f} | {each.step_seconds:.2f} "
            f"| {each.exchanging:.1%} | {each.waiting:.1%} |"
        )


def print_model(*, as_json: bool) -> None:
    """The efficiency of 2 and of 4 machines for each task and link."""
    rows = [(work, link, [efficiency(work, link, count) for count in (2, 4)]) for work in TASKS for link in LINKS]
    if as_json:
        print(json.dumps([[work.name, link.name, *shares] for work, link, shares in rows]))
        return
    print("| a step of 8,192 tokens | alone, s | gradients, MB | over | 2 machines | 4 machines |")
    print("|---|---|---|---|---|---|")
    for work, link, shares in rows:
        told = " | ".join(f"{share:.0%}" for share in shares)
        print(f"| {work.name} | {work.seconds:.1f} | {1000 * work.gradient_gb:,.0f} | {link.name} | {told} |")


if __name__ == "__main__":
    main()
