"""One trainer in a process of its own: `python -P -m tunebook.parity.speed.child ours JOB ANSWER`, two JSON files.

The other trainer is `stock`.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from .job import Job
from .ours import our_steps
from .stock import stock_steps

TRAINERS = {"ours": our_steps, "stock": stock_steps}


def main() -> None:
    trainer, job, answer = sys.argv[1:]
    found = TRAINERS[trainer](Job(**json.loads(Path(job).read_text())))
    Path(answer).write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
