"""How long 100,000 short conversations take from a file to planned batches, and from the cache the second time.

    python bench/data.py [--rows 100000] [--json]

Each figure is taken in a process of its own, with the tokenizer of SmolLM2-135M. The memory is the process's largest
resident set beyond what it had once the model was loaded (Linux alone); --rows 20000 shows what grows.

On two cores of an AMD EPYC, another program running: 33.8 s and 2.9 s.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "FILE"), help=argparse.SUPPRESS)  # what a child does
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    from tunebook import FastModel

    folder = FastModel.from_pretrained(MODEL)[0].loaded.folder
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.jsonl"
        with file.open("w") as out:
            for number in range(options.rows):
                question = f"What is {number} plus {number + 1}, and why?"
                answer = f"It is {2 * number + 1}, because adding {number} and {number + 1} gives that."
                turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                out.write(json.dumps({"messages": turns}) + "\n")
        found = {}
        for which in ("first time", "from the cache"):
            command = [sys.executable, __file__, "--measure", str(folder), str(file)]
            environment = {**os.environ, "TUNEBOOK_CACHE": f"{scratch}/cache"}
            child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found[which] = json.loads(child.stdout.splitlines()[-1])
    if options.json:
        print(json.dumps({"rows": options.rows, **found}))
        return
    print(f"{options.rows} rows       seconds   MB beyond the model")
    for which, figures in found.items():
        print(f"{which:<16}{figures['seconds']:>10.1f}{figures['mb']:>22.0f}")


def measure(model_folder: str, file: str) -> dict[str, float]:
    """Seconds and MB from the path to the first windows of a run."""
    from itertools import islice

    from tunebook import FastModel, TrainingConfig
    from tunebook.tokens.batch_order import windows
    from tunebook.tokens.stored_rows import lengths_of
    from tunebook.train.datasets import Datasets, prepare

    model, _ = FastModel.from_pretrained(model_folder, max_seq_length=512)
    forget_largest()
    before, began = largest_mb(), time.perf_counter()
    data = prepare(Datasets(train=file), model.loaded, TrainingConfig(), 512)
    planned = list(islice(windows(lengths_of(data.train.rows), TrainingConfig()), 10))
    assert len(planned) == 10
    return {"seconds": time.perf_counter() - began, "mb": largest_mb() - before}


def forget_largest() -> None:
    """Have Linux count the largest resident set anew; loading the model had a larger one."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def largest_mb() -> float:
    """The process's largest resident set, where it can be counted anew; macOS has no such counter, and 0 is given."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status.read_text().splitlines() if "VmHWM" in line)


if __name__ == "__main__":
    main()
