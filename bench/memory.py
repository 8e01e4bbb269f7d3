"""Peak memory of a LoRA step beyond the weights, against sequence length and vocabulary, ours and mlx-lm's `train`.

    python bench/memory.py [--lengths 256 512 1024 2048 4096] [--vocabularies 32768 262144] [--layers 18] [--json]

One row of full text, Gemma-3-270M's shape with its own vocabulary or another, each case in a process of its own: a peak
is of one thing alone. Lengths are measured with --vocabulary, vocabularies with --tokens. "recomputed" is with gradient
checkpointing, theirs with their own. A case that fails, for want of memory say, is shown as such: at 4,096 tokens and
262,144 words mlx-lm takes 20 GB with checkpointing.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

import numpy as np  # noqa: E402
from shapes import write_folder  # noqa: E402
from throughput import WorkerFailed, answered  # noqa: E402
from workers.job import Job  # noqa: E402

from tunebook.machine import runtime  # noqa: E402

KINDS = {  # what each is called -> its worker, and whether layers are computed twice
    "ours": ("workers.ours", False),
    "ours, recomputed": ("workers.ours", True),
    "mlx-lm": ("workers.mlx_lm", False),
    "mlx-lm, recomputed": ("workers.mlx_lm", True),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--vocabularies", type=int, nargs="*", default=[32768, 65536, 131072, 262144])
    parser.add_argument("--vocabulary", type=int, default=262144, help="that the lengths are measured with")
    parser.add_argument("--tokens", type=int, default=2048, help="of the row the vocabularies are measured with")
    parser.add_argument("--layers", type=int, default=18)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    cases = dict.fromkeys(
        [(tokens, options.vocabulary) for tokens in options.lengths]
        + [(options.tokens, vocabulary) for vocabulary in options.vocabularies]
    )
    found = []
    if not options.json:
        print(f"GB beyond the weights; {runtime.device_name()}")
        print("tokens x vocabulary".ljust(24) + "".join(kind.rjust(20) for kind in options.kinds))
    for tokens, vocabulary in cases:
        with tempfile.TemporaryDirectory() as folder:
            peaks = peaks_of(options.kinds, tokens, vocabulary, options.layers, Path(folder))
        found.append({"tokens": tokens, "vocabulary": vocabulary, "gb": peaks})
        if not options.json:
            cells = ("failed" if gb is None else f"{gb:.3f}" for gb in peaks.values())
            print(f"{tokens:>6} x {vocabulary:>7}".ljust(24) + "".join(cell.rjust(20) for cell in cells), flush=True)
    if options.json:
        print(json.dumps({**vars(options), "processor": runtime.device_name(), "cases": found}))


def peaks_of(kinds: list[str], tokens: int, vocabulary: int, layers: int, folder: Path) -> dict[str, float | None]:
    """GB (1e9 bytes) beyond the weights of two steps, by kind; None where the process failed, which is printed."""
    weights = write_folder(folder / "model", "gemma3", vocab_size=vocabulary, num_hidden_layers=layers)
    row = np.random.default_rng(0).integers(10, vocabulary, tokens + 1).tolist()  # the first is predicted from nothing
    peaks: dict[str, float | None] = {}
    for kind in kinds:
        worker, checkpointing = KINDS[kind]
        job = Job(folder=str(weights), rows=[row], answer=1, steps=1, warmup=1, checkpointing=checkpointing)
        try:
            peaks[kind] = answered(worker, job, folder, Path(sys.executable)).gb
        except WorkerFailed as error:
            print(f"{kind}, {tokens} x {vocabulary}: {error}", file=sys.stderr)
            peaks[kind] = None
    return peaks


if __name__ == "__main__":
    main()
