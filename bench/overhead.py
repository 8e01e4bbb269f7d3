"""What watching a run costs per optimizer step, at 10, 1,000 and 10,000 steps of history.

    python bench/overhead.py [--steps 250] [--step-ms 20] [--json]

Feeds the events of a made-up run, whose steps sleep, to what listens to a real one, and times the listeners alone: the
live dashboard with its widget and the messages it sends, inside a Jupyter kernel of its own; the log in `events.jsonl`;
and the guards of a step (the look whether loss and gradients are finite, the memory that is asked for, an interrupt
held back). For each it prints the mean, the dearest single step, and the share of the time that passed; the steps of a
real model take longer than the default here, so its share is smaller. The dashboard may take 1 ms per step and 1 % of
the time.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import nbclient
import nbformat

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook


from tunebook.events import Event, RunStarted, StepEvent  # noqa: E402
from tunebook.machine import runtime  # noqa: E402
from tunebook.machine.interrupts import held_back  # noqa: E402
from tunebook.runs.folder import event_log  # noqa: E402
from tunebook_widgets.dashboard.notebook import NotebookScreen  # noqa: E402
from tunebook_widgets.dashboard.progress import Progress  # noqa: E402

HISTORIES = (10, 1_000, 10_000)
MEAN_MS, SHARE = 1.0, 0.01  # the dashboard's limits


@dataclass(frozen=True)
class Result:
    """What one listener cost with so many steps behind it."""

    what: str
    history: int
    mean_ms: float  # per step
    worst_ms: float
    share: float  # of the time that passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250, help="timed for each line (default: %(default)s)")
    parser.add_argument("--step-ms", type=float, default=20.0, help="how long a step sleeps (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--in-kernel", action="store_true", help=argparse.SUPPRESS)  # how it runs itself
    asked = parser.parse_args()
    if not asked.in_kernel:
        print(_in_kernel(asked), end="")
        return
    listeners = {"dashboard": _dashboard, "events.jsonl": _log, "guards": _guards}
    results = [
        _measure(what, make(), history, steps=asked.steps, seconds=asked.step_ms / 1000)
        for what, make in listeners.items()
        for history in HISTORIES
    ]
    if asked.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    print(f"{'':14}{'history':>9}{'mean ms':>10}{'worst ms':>10}{'share':>9}")
    for each in results:
        print(f"{each.what:14}{each.history:>9,}{each.mean_ms:>10.4f}{each.worst_ms:>10.3f}{each.share:>9.3%}")
    shown = [each for each in results if each.what == "dashboard"]
    within = all(each.mean_ms <= MEAN_MS and each.share <= SHARE for each in shown)
    print(f"The dashboard is {'within' if within else 'OVER'} {MEAN_MS:g} ms per step and {SHARE:.0%} of the time.")


def _in_kernel(asked: argparse.Namespace) -> str:
    """What this script prints when a kernel runs it: only there do the messages of a widget go anywhere."""
    arguments = f"--in-kernel --steps {asked.steps} --step-ms {asked.step_ms}{' --json' if asked.json else ''}"
    cell = nbformat.v4.new_code_cell(f"%run {__file__} {arguments}")
    client = nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=None)
    done = client.execute(env={**os.environ, "TUNEBOOK_UI": "widget"})
    return "".join(output.text for output in done.cells[0].outputs if output.output_type == "stream")


def _measure(what: str, listen: Callable[[Event], None], history: int, *, steps: int, seconds: float) -> Result:
    total = history + steps
    listen(_started(total))
    for step in range(1, history + 1):
        listen(_step(step, total))
    took: list[float] = []
    began = time.perf_counter()
    for step in range(history + 1, total + 1):
        time.sleep(seconds)
        event, start = _step(step, total), time.perf_counter()
        listen(event)
        took.append(time.perf_counter() - start)
    passed = time.perf_counter() - began
    return Result(what, history, 1000 * sum(took) / steps, 1000 * max(took), sum(took) / passed)


def _dashboard() -> Callable[[Event], None]:
    screen, run = NotebookScreen("widget", on_request=print), Progress()

    def listen(event: Event) -> None:
        run.add(event)
        if isinstance(event, RunStarted):
            screen.begin(run)
        screen.update(run, event)

    return listen


def _log() -> Callable[[Event], None]:
    return event_log(tempfile.mkdtemp(prefix="overhead-"))


def _guards() -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if isinstance(event, StepEvent):
            with held_back():
                math.isfinite(event.loss), math.isfinite(event.grad_norm)
            runtime.memory()

    return listen


def _started(total: int) -> RunStarted:
    return RunStarted(
        total_steps=total,
        model="example/model",
        trainable_parameters=1,
        total_parameters=100,
        train_rows=8,
        eval_rows=2,
        awaited=True,
        config={"max_grad_norm": 1.0, "learning_rate": 2e-4},
    )


def _step(step: int, total: int) -> StepEvent:
    return StepEvent(
        step=step,
        total_steps=total,
        loss=1 + 1 / step,
        lr=2e-4,
        tokens_sec=1000.0,
        peak_gb=1.5,
        elapsed=0.5 * step,
        num_tokens=500 * step,
        grad_norm=0.5,
        active_gb=1.2,
        cache_gb=0.1,
    )


if __name__ == "__main__":
    main()
