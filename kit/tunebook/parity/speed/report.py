"""The report on a machine: what it is, whether the kit's forms are right on it, and how fast it is beside mlx-lm.

It is plain values and tells nothing of whose machine it is, so that it can be sent: `bench/reports/` of the repository
keeps such files.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...machine.gpu_errors import gpu_fault
from ...machine.gpu_facts import gpu_facts, refused_allocation, without_names
from ...machine.inert import visible
from ...machine.runtime import backend, default_dtype
from ...machine.working import working_folder
from ..report import finite
from .job import RANK, Job
from .random_model import SMOLLM2, random_model

LAYOUT = 1  # of the report; a higher one means other keys
SIZES = {"cpu": (1, 128), "metal": (4, 512), "cuda": (4, 512)}  # rows of a step, and predicted tokens of each
STEPS, WARMUP = 8, 2
SECONDS = 1800  # after which a process is taken to hang
TRAINERS = {"tunebook": "ours", "mlx-lm": "stock"}


@dataclass(frozen=True)
class MachineReport:
    """What was found; `json()` is the file to send, and the text a summary for people."""

    found: dict[str, Any]

    def json(self) -> str:
        """All of it, indented, with nothing of the user or the machine's name in it."""
        return json.dumps(without_names(self.found), indent=1, allow_nan=False) + "\n"

    def __str__(self):
        return visible("\n".join(summary(self.found)))

    __repr__ = __str__


def machine_report(
    *, shape: dict[str, Any] | None = None, size: tuple[int, int] | None = None, steps: int = STEPS
) -> MachineReport:
    """Time `steps` steps of both trainers on this machine; a minute or so on a GPU.

    Without a `shape` the model is of SmolLM2-135M's; without a `size`, rows and predicted tokens of each, the steps
    are as large as suits the backend. A trainer that fails is part of the report; why, is printed to stderr.
    """
    import mlx.core as mx

    shape = shape or SMOLLM2
    rows, tokens = size or SIZES[backend()]
    dtype = default_dtype(mx.bfloat16)
    ids = np.random.default_rng(0).integers(1, shape["vocab_size"], (rows, tokens + 1))
    with working_folder("report") as scratch:
        folder = random_model(scratch / "model", shape, dtype)
        job = Job(folder=str(folder), rows=ids.tolist(), steps=steps, warmup=WARMUP)
        answers = {name: _answer(name, job, scratch) for name in TRAINERS}
    forms = answers["tunebook"].pop("forms", [])
    return MachineReport(
        {
            "layout": LAYOUT,
            "made": datetime.now(UTC).strftime("%Y-%m-%d"),
            **gpu_facts(),
            "refused_allocation": refused_allocation(),
            "self_test": forms,
            "steps": {
                "shape": {key: value for key, value in shape.items() if isinstance(value, int | str)},
                "dtype": str(dtype).removeprefix("mlx.core."),
                "rank": RANK,
                "rows": rows,
                "predicted_tokens": job.predicted,
                **answers,
            },
        }
    )


def _answer(name: str, job: Job, scratch: Path) -> dict[str, Any]:
    """What a trainer's process found, or why it found nothing, in words that tell no path."""
    question, answer = scratch / "job.json", scratch / f"{name}.json"
    question.write_text(json.dumps(asdict(job)))
    # -P: Python files in the folder one happens to stand in are not to be imported.
    command = [sys.executable, "-P", "-m", "tunebook.parity.speed.child", TRAINERS[name], str(question), str(answer)]
    print(f"Taking {job.warmup + job.steps} steps: {name}", file=sys.stderr)
    try:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {SECONDS} seconds"}
    if done.returncode:
        print(visible(done.stderr[-3000:]), file=sys.stderr)
        fault = gpu_fault(RuntimeError(done.stderr))
        return {"failed": f"exit code {done.returncode}" + (f", a fault of the GPU: {fault}" if fault else "")}
    found = json.loads(answer.read_text())
    rate = job.predicted / statistics.median(found["seconds"])
    return {"tokens_per_second": round(rate, 1), **finite(found)}


def summary(found: dict[str, Any]) -> list[str]:
    """The report in lines of text."""
    chip, versions, limits = found["chip"], found["versions"], found["limits"]
    usable = "" if limits["usable_gb"] is None else f", {limits['usable_gb']:.1f} of them usable"
    lines = [
        f"{chip['name']} ({chip['backend']}), {chip['ram_gb']:.0f} GB{usable}",
        f"{versions['system']}, Python {versions['python']}, MLX {versions['mlx']}",
        f"The watchdog's variable is {'set' if found['watchdog_relaxed'] else 'not set'}.",
        _of_the_allocation(found["refused_allocation"]),
        "",
        f"{'form of the pass':<34} {'distance':>9} {'seconds':>9} {'peak GB':>8}",
    ]
    for form in found["self_test"]:
        cells = (_cell(form["distance"], ".1e"), _cell(form["seconds"], ".4f"), _cell(form["peak_gb"], ".2f"))
        lines.append(f"{form['what']:<34} {cells[0]:>9} {cells[1]:>9} {cells[2]:>8} {form['why_not']}".rstrip())
    steps = found["steps"]
    lines += ["", f"{'steps of ' + str(steps['predicted_tokens']) + ' tokens':<34} {'tokens/s':>9} {'peak GB':>8}"]
    for name in TRAINERS:
        one = steps[name]
        rates = f"{one['tokens_per_second']:>9,.0f} {one['peak_gb']:>8.2f}" if "failed" not in one else one["failed"]
        lines.append(f"{name:<34} {rates}")
    return lines


def _of_the_allocation(found: dict[str, Any]) -> str:
    if not found["tried"]:
        return "No allocation beyond the limit was tried: MLX's CPU build has none."
    if not found["refused"]:
        return "An allocation beyond every limit was NOT refused."
    return "An allocation beyond every limit was refused" + (
        "." if found["known"] == "memory" else f", in words the kit takes for {found['known']}."
    )


def _cell(value: float | str | None, form: str) -> str:
    return "" if value is None else value if isinstance(value, str) else format(value, form)
