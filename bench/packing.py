"""What packing saves on rows of very unequal length, against two orders that pad.

    python bench/packing.py [--model NAME] [--rows 96] [--repeats 3] [--json]

Takes forward and backward passes over an epoch of the same documents of random tokens, log-normal in length, in the
orders `shuffle` and `length_grouped` and packed, in turn, with about as many documents in a batch. Prints for each its
batches, the share of padding (and what it would be of 100,000 documents) and the supervised tokens per second of the
median epoch; then, how long it takes to pack those 100,000.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import numpy as np  # noqa: E402
from mlx_lm.models import llama  # noqa: E402

from tunebook import FastModel, TrainingConfig  # noqa: E402
from tunebook.config import Order  # noqa: E402
from tunebook.data.encoded import Encoded  # noqa: E402
from tunebook.models.families.base import Family  # noqa: E402
from tunebook.models.families.text import TextFamily  # noqa: E402
from tunebook.objectives.next_token import summed_loss, supervised_positions  # noqa: E402
from tunebook.tokens.batch_order import padded_width, padding_share, steps_per_epoch, windows  # noqa: E402
from tunebook.tokens.packing import pack  # noqa: E402
from tunebook.train.packing_check import why_not_packed  # noqa: E402

MANY = 100_000

SMALL = {  # 1 million parameters
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 4096,
}


@dataclass(frozen=True)
class Result:
    """One way of making batches."""

    order: str
    batches: int
    rows_per_batch: int
    padding: float  # share of the tokens
    padding_of_many: float  # the same for MANY documents: sorting needs many to find its like
    tokens_per_second: float  # supervised tokens


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", help="a model to load and give adapters; a small Llama of random weights if not given"
    )
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=8, help="documents in a batch that is not packed")
    parser.add_argument("--max-seq-length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no table")
    options = parser.parse_args()
    length = options.max_seq_length

    module, family = opened(options.model)
    reason = why_not_packed(family, module, max_seq_length=length)
    if reason is not None:
        raise SystemExit(f"This model cannot train on packed rows: {reason}.")
    words = min(family.tables.tokens or SMALL["vocab_size"], SMALL["vocab_size"])
    rows = documents(options.rows, length, words)
    packed = pack(rows, length, seed=0)
    packed_size = max(1, round(options.batch_size * len(packed) / len(rows)))

    many = documents(MANY, length, words)
    began = time.perf_counter()
    many_packed = pack(many, length, seed=0)
    seconds_to_pack = time.perf_counter() - began

    ways = {
        "shuffle": (rows, config("shuffle", options.batch_size)),
        "length_grouped": (rows, config("length_grouped", options.batch_size)),
        "packed": (packed, config("shuffle", packed_size)),
    }
    many_ways = {"shuffle": many, "length_grouped": many, "packed": many_packed}
    epochs = {name: epoch(module, family, *way, max_seq_length=length) for name, way in ways.items()}
    seconds = median_seconds(epochs, options.repeats)
    results = [
        Result(
            order=name,
            batches=steps_per_epoch(len(some), settings),
            rows_per_batch=settings.per_device_train_batch_size,
            padding=padding_share(lengths(some), settings, max_seq_length=length),
            padding_of_many=padding_share(lengths(many_ways[name]), settings, max_seq_length=length),
            tokens_per_second=sum(row.supervised_tokens for row in some) / seconds[name],
        )
        for name, (some, settings) in ways.items()
    ]
    if options.json:
        print(json.dumps({"results": [vars(result) for result in results], "seconds_to_pack_many": seconds_to_pack}))
        return
    print(f"{options.rows} documents of up to {length} tokens, {statistics.mean(lengths(rows)):.0f} on average")
    print_table(results)
    print(f"packing {MANY:,} documents takes {seconds_to_pack:.1f} s")


def print_table(results: list[Result]) -> None:
    """One line for each way, the first of which the others are compared with."""
    print(f"{'order':>16} {'batches':>8} {'rows each':>10} {'padding':>8} {'of many':>8} {'tokens/s':>9} {'speed':>6}")
    for result in results:
        print(
            f"{result.order:>16} {result.batches:8} {result.rows_per_batch:10} {result.padding:8.1%} "
            f"{result.padding_of_many:8.1%} {result.tokens_per_second:9.0f} "
            f"{result.tokens_per_second / results[0].tokens_per_second:5.2f}x"
        )


def opened(name: str | None) -> tuple[nn.Module, Family]:
    """A model with adapters by its name, or the small one, all of which is trained."""
    if name is not None:
        model, _ = FastModel.from_pretrained(name)
        FastModel.get_peft_model(model)
        return model.module, model.family
    mx.random.seed(0)
    module = llama.Model(llama.ModelArgs.from_dict(SMALL))
    mx.eval(module.parameters())
    return module, TextFamily(module, tokenizer=None)  # the documents come as tokens


def documents(count: int, max_seq_length: int, words: int) -> list[Encoded]:
    """Documents of random tokens of which the second half is supervised; the middle one is an eighth of the longest."""
    random = np.random.default_rng(0)
    sizes = random.lognormal(np.log(max_seq_length / 8), 0.9, count).astype(int).clip(4, max_seq_length)
    return [
        Encoded(tokens=random.integers(1, words, size, dtype=np.int32), loss_mask=np.arange(size) >= size // 2)
        for size in sizes.tolist()
    ]


def lengths(rows: list[Encoded]) -> list[int]:
    """Tokens of each row."""
    return [len(row.tokens) for row in rows]


def config(order: Order, batch_size: int) -> TrainingConfig:
    """How the rows of an epoch are put into batches."""
    return TrainingConfig(
        dataset_order=order, per_device_train_batch_size=batch_size, gradient_accumulation_steps=1, seed=0
    )


def epoch(
    module: nn.Module, family: Family, rows: list[Encoded], config: TrainingConfig, *, max_seq_length: int
) -> Callable[[int | None], None]:
    """`take(batches)`: forward and backward passes over the first `batches` of an epoch, None for all of them."""
    value_and_grad = nn.value_and_grad(module, summed_loss(family))
    steps = steps_per_epoch(len(rows), config)

    def take(batches: int | None) -> None:
        module.train()
        for [numbers] in islice(windows(lengths(rows), config), batches or steps):
            some = [rows[number] for number in numbers]
            batch = family.collate(some, padded_width(max(len(row.tokens) for row in some), max_seq_length))
            mx.eval(value_and_grad(module, batch, supervised_positions(batch)))

    return take


def median_seconds(epochs: dict[str, Callable[[int | None], None]], repeats: int) -> dict[str, float]:
    """Seconds of each epoch. They take turns, so that what else the machine does falls on all of them."""
    seconds = {name: [] for name in epochs}
    for take in epochs.values():
        take(1)  # to warm up
    for _ in range(repeats):
        for name, take in epochs.items():
            began = time.perf_counter()
            take(None)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    main()
