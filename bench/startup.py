"""How long it takes until a run takes its first step: import, load, encode, one step, each process starting afresh.

    python bench/startup.py [--model FOLDER_OR_HUB_ID] [--repeats 5] [--json]

Without --model a tiny random one is made, so what is left are the libraries. "with torch" is the same run with
USE_TORCH=1: transformers then loads torch if it is installed, as it does in any program that does not prevent it. The
kinds of run alternate, and each figure is the median.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import sys, time
began = time.perf_counter()
def lap(name, laps={}):
    laps[name] = time.perf_counter() - began - sum(laps.values())
    return laps
import tunebook
lap("import tunebook")
from tunebook import FastModel, Trainer, TrainingConfig
lap("import its MLX modules")
model, tokenizer = FastModel.from_pretrained(sys.argv[1])
FastModel.get_peft_model(model)
lap("load")
rows = [{"prompt": f"Count to {n}.", "completion": " ".join(map(str, range(n)))} for n in range(2, 10)]
trainer = Trainer(model, tokenizer, train_dataset=rows, args=TrainingConfig(max_steps=1, hold_out=0, output_dir=None))
lap("encode")
trainer.train()
laps = lap("first step")
import json
print(json.dumps({**laps, "all": sum(laps.values()), "torch is loaded": "torch" in sys.modules}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    kinds = {"tunebook": "", "with torch": "1"}
    laps: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or tiny(Path(folder))
        for _ in range(options.repeats):
            for name, switch in kinds.items():
                laps[name].append(one_run(model, switch))
    found = {name: {lap: statistics.median(run[lap] for run in runs) for lap in runs[0]} for name, runs in laps.items()}
    if options.json:
        print(json.dumps({**vars(options), "seconds": found}))
        return
    print(f"{'seconds':<22}" + "".join(f"{name:>12}" for name in kinds))
    for lap in found["tunebook"]:
        print(f"{lap:<22}" + "".join(f"{found[name][lap]:12.2f}" for name in kinds))


def one_run(model: str, use_torch: str) -> dict[str, float]:
    """Seconds of each part of a run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, model],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "USE_TORCH": use_torch},
    )
    return json.loads(done.stdout.splitlines()[-1])


def tiny(folder: Path) -> str:
    """A random two-layer model, made in another process: this one measures and loads nothing."""
    program = "import sys; from tests.makers.tiny import tiny_model_folder; tiny_model_folder(sys.argv[1])"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, cwd=root)
    return str(folder)


if __name__ == "__main__":
    main()
