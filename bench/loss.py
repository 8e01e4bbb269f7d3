"""What it saves to send only supervised positions through the output head.

    python bench/loss.py [--model NAME] [--rows 4]

Runs forward and backward of the kit's loss and of the plain one (all logits, then a mask) in turn on the same rows of
`samples.python_docs`, and prints the median seconds of each, their ratio, and the peak memory.
"""

import argparse
import statistics
import time

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402

from tunebook import FastModel, samples  # noqa: E402
from tunebook.objectives.next_token import summed_loss, supervised_positions  # noqa: E402
from tunebook.tokens.batch_order import padded_width  # noqa: E402
from tunebook.tokens.encoding import encode_rows  # noqa: E402


def over_all_logits(module, batch, _):
    """The plain loss: logits for every position, most of them multiplied by zero."""
    logits = module(batch["tokens"][:, :-1]).astype(mx.float32)
    return (nn.losses.cross_entropy(logits, batch["tokens"][:, 1:]) * batch["loss_mask"][:, 1:]).sum()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    model, _ = FastModel.from_pretrained(options.model)
    FastModel.get_peft_model(model)
    rows = encode_rows(samples.python_docs()[: options.rows], model.loaded, max_seq_length=2048).rows
    batch = model.family.collate(rows, padded_width(max(len(row.tokens) for row in rows), 2048))
    positions = supervised_positions(batch)
    share = positions.size / (batch["tokens"].size - options.rows)
    print(f"{options.rows} rows, {batch['tokens'].shape[1]} tokens wide, {share:.0%} of the predictions supervised")

    losses = {"supervised positions": summed_loss(model.family), "all logits": over_all_logits}
    seconds = {name: [] for name in losses}
    peaks = {}
    for repeat in range(options.repeats + 1):
        for name, loss in losses.items():
            mx.clear_cache()
            mx.reset_peak_memory()
            began = time.perf_counter()
            mx.eval(nn.value_and_grad(model.module, loss)(model.module, batch, positions))
            if repeat:  # the first pass warms up
                seconds[name].append(time.perf_counter() - began)
            peaks[name] = mx.get_peak_memory() / 1e9
    for name, times in seconds.items():
        print(f"{name:>22}: {statistics.median(times):6.2f} s, peak {peaks[name]:.2f} GB")
    ratios = [plain / ours for ours, plain in zip(*seconds.values(), strict=True)]
    print(f"{'ratio':>22}: {statistics.median(ratios):.2f} times the speed (pair by pair)")


if __name__ == "__main__":
    main()
