"""Does a run in several processes ever hang or lose steps when one of them is killed or stopped at a random moment?

    python bench/lost_ranks.py [COUNT] [--seed 0]

Begins COUNT runs (200) of a tiny model in two or three processes, sends SIGKILL or SIGSTOP to one of them at a random
moment, and goes on with each in one process. Prints a line for each run that took longer than 30 seconds to end, that
did not name who was lost, or that came to other weights than the run nobody disturbed; then what they came to.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.makers.processes.ranks_faults import drawn, gone_on, struck, undisturbed

SECONDS = 30
FAR = 2e-3  # Adam takes a step of the full rate for a gradient that is rounding


def main() -> None:
    """Strike and go on, COUNT times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draws, found = random.Random(asked.seed), Counter()
    with tempfile.TemporaryDirectory() as made:
        wanted = undisturbed(_new(Path(made) / "undisturbed"))
        for number in tqdm(range(asked.count), unit=" runs"):
            fault, folder = drawn(draws), _new(Path(made) / str(number))
            outcome = struck(fault, folder)
            ours = gone_on(folder)
            was_over = not any(code for rank, code in enumerate(outcome.codes) if rank != fault.rank)
            wrong = []
            if not was_over and outcome.seconds > SECONDS:
                wrong.append(f"ended after {outcome.seconds:.0f} s")
            if not was_over and f"Rank {fault.rank} (" not in outcome.wrote:
                wrong.append("named nobody")
            if any(np.abs(ours[name] - array).max() > FAR for name, array in wanted.items()):
                wrong.append("came to other weights")
            found["wrong" if wrong else "over before it was struck" if was_over else "as undisturbed"] += 1
            if wrong:
                print(f"{number}: {fault}: {', '.join(wrong)}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in found.items()))


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
