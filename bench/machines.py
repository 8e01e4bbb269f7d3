"""What was run on which machine, as the README has it: the reports of `bench/reports/` in, a table and a sentence out.

    python bench/machines.py            # print the part of the README
    python bench/machines.py --write    # and put it there

A report is what `make report` leaves on a machine, under a name of its own. Times of borrowed virtual Macs are left
out: they say nothing of a machine on a desk.
"""

import argparse
import json
from pathlib import Path
from textwrap import fill
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- python bench/machines.py --write -->\n", "<!-- /machines -->\n"
HEADINGS = ("machine", "computes on", "system, MLX", "forms of the pass", "tokens/s, mlx-lm's", "peak GB, mlx-lm's")
LAYOUT = 1  # that is read here
# What is said of a backend while there is no report of one that is no virtual machine.
NEVER = {
    "metal": "**Tunebook was never run on a Mac.** What it launches on Metal is counted and tested on MLX's CPU build, "
    "and before its first step a run proves on its own rows that each fast form gives what the plain one does.",
    "cuda": "There is no report of an NVIDIA GPU yet.",
}


def main() -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path, default=HERE / "reports", help="a folder of reports")
    parser.add_argument("--write", action="store_true", help="put it into the README")
    options = parser.parse_args()
    part = said_of([json.loads(path.read_text()) for path in sorted(options.reports.glob("*.json"))])
    print(part, end="")
    if options.write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}{part}{END}{rest.partition(END)[2]}")


def said_of(reports: list[dict[str, Any]]) -> str:
    """The part of the README between its markers."""
    if unknown := {report["layout"] for report in reports} - {LAYOUT}:
        raise ValueError(f"bench/reports holds layout {sorted(unknown)}; this reads {LAYOUT}.")
    real = {report["chip"]["backend"] for report in reports if not report["chip"]["is_virtual"]}
    never = [sentence for backend, sentence in NEVER.items() if backend not in real]
    rows = [HEADINGS, ("---",) * len(HEADINGS), *map(row, reports)]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows) if reports else ""
    sentences = fill(" ".join(never), 120) + "\n" if never else ""
    return "\n".join(filter(None, [table, sentences]))


def row(report: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one report, under HEADINGS."""
    chip, versions, steps = report["chip"], report["versions"], report["steps"]
    wrong = [form["what"] for form in report["self_test"] if form["why_not"]]
    tried = len(report["self_test"])
    forms = f"wrong: {', '.join(wrong)}" if wrong else f"{tried} right" if tried else "not tried"
    both = [steps["tunebook"], steps["mlx-lm"]]
    return (
        f"{chip['name']}, {chip['cores']} cores, {chip['ram_gb']:.0f} GB",
        chip["backend"],
        f"{versions['system']}, {versions['mlx']}",
        forms,
        "virtual" if chip["is_virtual"] else ", ".join(figure(one, "tokens_per_second", ",.0f") for one in both),
        ", ".join(figure(one, "peak_gb", ".2f") for one in both),
    )


def figure(one: dict[str, Any], name: str, form: str) -> str:
    return "failed" if "failed" in one else format(one[name], form)


if __name__ == "__main__":
    main()
