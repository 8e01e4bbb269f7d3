"""The width of a batch and the order of the rows, against the formulas they are said to follow and torch itself."""

from itertools import islice

import torch

from ...tokens.batch_order import steps_per_epoch, torch_randperm, windows
from ...tokens.stored_rows import lengths_of
from ..case import Case
from ..finding import Finding

PERMUTED = (1, 2, 3, 10, 100, 1000, 12_345)  # how many rows are put in torch's order
SEEDS = (0, 1, 3407, 2**31)


def width(case: Case) -> list[Finding]:
    """Every length up to the cap is padded to `1 + 32 ceil(L / 32)`."""
    cap = case.max_seq_length
    off = {
        length: case.procedure.width(length, cap) - min(cap, 1 + 32 * -(-length // 32)) for length in range(1, cap + 1)
    }
    worst = max(off, key=lambda length: abs(off[length]))
    found = case.procedure.width(worst, cap)
    return [
        Finding(
            stage="batches",
            what="padded widths and 1 + 32 ceil(L / 32)",
            measured=abs(off[worst]),
            tolerance=0,
            unit="tokens",
            evidence=f"A row of {worst} tokens is padded to {found}, {off[worst]:+d} of what it should be."
            if off[worst]
            else f"All lengths from 1 to {cap} agree.",
        )
    ]


def order(case: Case) -> list[Finding]:
    """Each row of an epoch is seen once, in the order the settings name; `torch_randperm` is torch's own."""
    lengths = lengths_of(case.encoded)
    wrong = sum(
        torch_randperm(count, seed) != torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
        for count in PERMUTED
        for seed in SEEDS
    )
    steps = 2 * steps_per_epoch(len(lengths), case.training)  # two epochs
    found = list(islice(case.procedure.windows(lengths, case.training), steps))
    expected = list(islice(windows(lengths, case.training), steps))
    different = [step for step, pair in enumerate(zip(found, expected, strict=True), start=1) if pair[0] != pair[1]]
    if different:
        step = different[0]
        at = f"Step {step} takes rows {found[step - 1]} where {expected[step - 1]} are due."
    else:
        at = f"{wrong} permutations differ from torch.randperm." if wrong else f"All {steps} steps of two epochs agree."
    return [
        Finding(
            stage="batches",
            what="order of the rows, and torch.randperm",
            measured=wrong + len(different),
            tolerance=0,
            unit="steps",
            evidence=at,
        )
    ]
