"""The shell's way in: `python -m tunebook.parity --model NAME --report out.html [--json out.json] [--rows FILE]`.

With `--objective DPO` the rows are preferences, and the judge is TRL. With `--together FOLDER` nothing is compared: the
reports in a folder, each of some stages, become one.
"""

import argparse
import sys

import torch  # noqa: F401 - before the kit's own names, which would have transformers find none

from ..data.sources import read_rows
from ..objectives import CPO, DPO, KTO, ORPO, SimPO
from ..objectives.base import Objective
from ..samples.sets import python_docs
from .chain import CHAIN, PREFERENCE_CHAIN, bisect
from .together import together

SHORTEST = 12  # of the sample's rows are used where none are given
OBJECTIVES = {"DPO": DPO, "ORPO": ORPO, "CPO": CPO, "SimPO": SimPO, "KTO": KTO}
STAGES = list(dict.fromkeys([*CHAIN, *PREFERENCE_CHAIN]))


def main(arguments: list[str] | None = None) -> int:
    """Run the chain and print its table; the exit code is 1 when something is beyond its tolerance, or untold."""
    parser = argparse.ArgumentParser(
        prog="python -m tunebook.parity",
        description="Compare training in this kit with transformers, PEFT and torch, mlx-lm and llama.cpp.",
    )
    compared = parser.add_mutually_exclusive_group(required=True)
    compared.add_argument("--model", help="a hub id, a model folder or a .gguf file")
    compared.add_argument("--together", metavar="FOLDER", help="a folder of .json files that --json wrote before")
    parser.add_argument("--rows", help="a file, folder or hub id of rows; without it, short functions of Python's own")
    parser.add_argument("--report", help="write the report to this .html file")
    parser.add_argument("--json", help="write its numbers to this .json file")
    parser.add_argument("--max-seq-length", type=int, default=192, help="tokens per row (192)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, metavar="STAGE", help=f"of {', '.join(CHAIN)}")
    parser.add_argument(
        "--objective",
        choices=list(OBJECTIVES),
        help=f"compare learning from preferences with TRL, at the stages {', '.join(PREFERENCE_CHAIN)}",
    )
    given = parser.parse_args(arguments)
    untold: list[str] = []
    if given.together is None:
        objective = OBJECTIVES[given.objective]() if given.objective else None
        rows = _own_rows(objective) if given.rows is None else read_rows(given.rows, "--rows")
        report = bisect(
            given.model, rows, max_seq_length=given.max_seq_length, stages=given.stages, objective=objective
        )
    else:
        report, untold = together(given.together)
    print(report)
    if untold:
        print(f"No report tells of {', '.join(untold)}.")
    for path, write in ((given.report, report.to_html), (given.json, report.to_json)):
        if path is not None:
            print(f"Written to {write(path)}.")
    return 0 if report.first is None and not untold else 1


def _shortest() -> list[dict]:
    rows = python_docs()
    return sorted(rows, key=lambda row: sum(len(turn["content"]) for turn in row["messages"]))[:SHORTEST]


def _own_rows(objective: Objective | None) -> list[dict]:
    """For an objective over answers, each function with its own sentence, the better answer, and with another's."""
    if objective is None:
        return _shortest()
    rows = [row["messages"] for row in _shortest()]
    pairs = [
        {"prompt": [asked], "chosen": [answer], "rejected": [other]}
        for (asked, answer), (_, other) in zip(rows, [rows[-1], *rows[:-1]], strict=True)
    ]
    if objective.rows == "pairs":
        return pairs
    return [
        {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
        for pair in pairs
        for side in ("chosen", "rejected")
    ]


if __name__ == "__main__":
    sys.exit(main())
