"""Peak memory of a LoRA step beyond the weights, against sequence length and vocabulary, ours and mlx-lm's `train`.

    python bench/memory.py [--lengths 256 512 1024 2048 4096] [--vocabularies 32768 262144] [--layers 18] [--json]

One row of full text, Gemma-3-270M's shape with another vocabulary, each case in a process of its own: a peak is of
one thing alone. Lengths are measured with the smallest vocabulary, vocabularies with --tokens. "recomputed" is with
gradient checkpointing, theirs with their own. A case that fails, for want of memory say, is shown as such.
"""

import argparse
import json
import subprocess
import sys

KINDS = ("ours", "ours, recomputed", "mlx-lm", "mlx-lm, recomputed")

PROGRAM = """
import sys
sys.path.insert(0, {bench!r})
import tunebook
import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import shapes
from pathlib import Path
from mlx_lm.models import gemma3_text
from mlx_lm.tuner.trainer import TrainingArgs, train
from tunebook import LoraConfig, TrainingConfig
from tunebook.adapters import add_adapters
from tunebook.families.base import Encoded
from tunebook.families.text import TextFamily
from tunebook.loader import Loaded
from tunebook.step import Stepper

def started():
    mx.clear_cache()
    mx.reset_peak_memory()
    return mx.get_active_memory() / 1e9

kind, tokens, vocabulary, layers = {kind!r}, {tokens}, {vocabulary}, {layers}
settings = shapes.SHAPES["gemma3"] | {{"vocab_size": vocabulary, "num_hidden_layers": layers}}
module = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(settings))
add_adapters(module, LoraConfig(r=16))
mx.eval(module.parameters())
numbers = np.random.default_rng(0).integers(10, vocabulary, tokens + 1).astype(np.int32)
recomputed = kind.endswith("recomputed")
if kind.startswith("ours"):
    row = Encoded(tokens=numbers, loss_mask=np.ones(tokens + 1, bool))
    family = TextFamily(module, tokenizer=None)
    loaded = Loaded(name="random", source="", folder=Path(), config={{}}, module=module, tokenizer=None, family=family,
                    checkpoint_dtype=mx.float32, dtype=mx.float32, max_seq_length=tokens + 1)
    config = TrainingConfig(gradient_checkpointing=recomputed)
    stepper = Stepper(loaded, config, [row], total_steps=2, max_seq_length=tokens + 1)
    before = started()
    for step in (1, 2):
        stepper.begin(step)
        stepper.add([row], alone=True)
        stepper.finish()
else:
    before = started()
    args = TrainingArgs(batch_size=1, iters=2, max_seq_length=tokens + 1, steps_per_report=10, steps_per_save=10**9,
                        adapter_file="/dev/null", grad_checkpoint=recomputed)
    train(module, optim.AdamW(learning_rate=1e-5), [(numbers.tolist(), 0)], args=args)
print(mx.get_peak_memory() / 1e9 - before)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--vocabularies", type=int, nargs="*", default=[32768, 65536, 131072, 262144])
    parser.add_argument("--tokens", type=int, default=2048, help="of the row the vocabularies are measured with")
    parser.add_argument("--layers", type=int, default=18)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    smallest = min(options.vocabularies, default=32768)
    cases = dict.fromkeys(
        [(tokens, smallest) for tokens in options.lengths]
        + [(options.tokens, vocabulary) for vocabulary in options.vocabularies]
    )
    found = []
    if not options.json:
        print("GB beyond the weights".ljust(24) + "".join(kind.rjust(20) for kind in options.kinds))
    for tokens, vocabulary in cases:
        peaks = {kind: peak_gb(kind, tokens, vocabulary, options.layers) for kind in options.kinds}
        found.append({"tokens": tokens, "vocabulary": vocabulary, "gb": peaks})
        if not options.json:
            cells = ("failed" if gb is None else f"{gb:.3f}" for gb in peaks.values())
            print(f"{tokens:>6} x {vocabulary:>7}".ljust(24) + "".join(cell.rjust(20) for cell in cells), flush=True)
    if options.json:
        print(json.dumps({**vars(options), "cases": found}))


def peak_gb(kind: str, tokens: int, vocabulary: int, layers: int) -> float | None:
    """GB (1e9 bytes) of two steps beyond the weights; None when the process failed, whose words are on stderr."""
    program = PROGRAM.format(kind=kind, tokens=tokens, vocabulary=vocabulary, layers=layers, bench=sys.path[0])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{kind}, {tokens} x {vocabulary}: exit {done.returncode}. {done.stderr[-300:]}", file=sys.stderr)
        return None
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
