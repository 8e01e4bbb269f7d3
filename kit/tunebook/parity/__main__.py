"""The shell's way in: `python -m tunebook.parity --model NAME --report out.html [--json out.json] [--rows FILE]`.

With `--together FOLDER` nothing is compared: the reports in a folder, each of some stages, become one.
"""

import argparse
import sys

from ..data.sources import read_rows
from ..samples.sets import python_docs
from .chain import CHAIN, bisect
from .together import together

SHORTEST = 12  # of the sample's rows are used where none are given


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
    parser.add_argument("--stages", nargs="+", choices=list(CHAIN), metavar="STAGE", help=f"of {', '.join(CHAIN)}")
    given = parser.parse_args(arguments)
    untold: list[str] = []
    if given.together is None:
        rows = _shortest() if given.rows is None else read_rows(given.rows, "--rows")
        report = bisect(given.model, rows, max_seq_length=given.max_seq_length, stages=given.stages)
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


if __name__ == "__main__":
    sys.exit(main())
