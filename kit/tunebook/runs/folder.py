"""Run folders: one numbered folder per training run, with every event of the run as a line of `events.jsonl`.

What the model wrote on the way is in `samples.jsonl` too, for whoever wants that alone. What comes in are events
(`log.py`), what goes out is a file a person, a dashboard or another process can read while the run goes on, and
`load`, which reads it back as columns. A file called `STOP` that its owner puts into the folder ends the run. Standard
library and NumPy only, so a run can be looked at where there is no MLX.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..events import EvalEvent, Notice, RunEnded, RunStarted, SampleEvent, ScoreEvent, StepEvent
from ..machine.inert import one_line
from ..machine.private import make_private_folder, new_private_file
from .learning_rates import RATES_FILE, LearningRatesLost, check_learning_rates, keep_rates
from .log import event_log, rewind
from .log_lines import EVENTS_FILE, SAMPLES_FILE, last_events, log_of, read_events

__all__ = [
    "CONFIG_FILE",
    "EVENTS_FILE",
    "RATES_FILE",
    "SAMPLES_FILE",
    "STOP_FILE",
    "LearningRatesLost",
    "RunHistory",
    "check_learning_rates",
    "event_log",
    "keep_config",
    "keep_rates",
    "last_events",
    "load",
    "new_run_folder",
    "read_events",
    "rewind",
    "run_folders",
]

CONFIG_FILE = "config.json"
STOP_FILE = "STOP"


@dataclass(frozen=True, eq=False, kw_only=True)
class RunHistory:
    """What a run has said so far. Columns are float64; units are those of `events.StepEvent` and `events.EvalEvent`."""

    path: Path  # the events.jsonl it was read from
    started: RunStarted  # of a resumed run: how it went on
    ended: RunEnded | None  # None: the run still goes on, or was killed
    notices: tuple[Notice, ...]
    samples: tuple[SampleEvent, ...]
    scores: tuple[ScoreEvent, ...]
    step: np.ndarray  # (steps,), as are the next seven
    loss: np.ndarray
    lr: np.ndarray
    tokens_sec: np.ndarray
    peak_gb: np.ndarray
    elapsed: np.ndarray
    num_tokens: np.ndarray
    grad_norm: np.ndarray
    eval_step: np.ndarray  # (evaluations,), as is the next
    eval_loss: np.ndarray

    def __repr__(self):
        reached = int(self.step[-1]) if self.step.size else self.started.step
        loss = f", last loss {self.loss[-1]:.4f}" if self.loss.size else ""
        state = f"ended: {self.ended.reason.replace('_', ' ')}" if self.ended else "its end is not in the log"
        return f"A run of {one_line(self.started.model)}: step {reached} of {self.started.total_steps}{loss}; {state}."


def load(path: Path | str) -> RunHistory:
    """Read back the run at `path`, its folder or its events.jsonl, with what `read_events` says of its lines.

        >>> losses = load_run("runs/run-001").loss

    Raises FileNotFoundError where there is no log, ValueError for one that no run has begun.
    """
    file = log_of(Path(path))
    events = list(read_events(file))
    started = [event for event in events if isinstance(event, RunStarted)]
    if not started:
        odd = [event.text for event in events if isinstance(event, Notice)][-1:]
        said = "no run has begun in it, or its start was cut off."
        raise ValueError(" ".join([f"{file} does not say what run it is of: {said}", *odd]))
    ended = [event for event in events if isinstance(event, RunEnded)]
    steps = [event for event in events if isinstance(event, StepEvent)]
    evals = [event for event in events if isinstance(event, EvalEvent)]
    return RunHistory(
        path=file,
        started=started[-1],
        ended=ended[-1] if ended else None,
        notices=tuple(event for event in events if isinstance(event, Notice)),
        samples=tuple(event for event in events if isinstance(event, SampleEvent)),
        scores=tuple(event for event in events if isinstance(event, ScoreEvent)),
        step=_column([event.step for event in steps]),
        loss=_column([event.loss for event in steps]),
        lr=_column([event.lr for event in steps]),
        tokens_sec=_column([event.tokens_sec for event in steps]),
        peak_gb=_column([event.peak_gb for event in steps]),
        elapsed=_column([event.elapsed for event in steps]),
        num_tokens=_column([event.num_tokens for event in steps]),
        grad_norm=_column([event.grad_norm for event in steps]),
        eval_step=_column([event.step for event in evals]),
        eval_loss=_column([event.loss for event in evals]),
    )


def new_run_folder(output_dir: Path | str) -> Path:
    """Make and return the next free `run-001`, `run-002`, ... in `output_dir`, for its owner alone."""
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name[4:]) for path in run_folders(output_dir)), default=0)
    while True:
        if make_private_folder(output_dir / f"run-{number:03d}"):
            return output_dir / f"run-{number:03d}"
        number += 1  # another process took it between the look and now


def run_folders(output_dir: Path | str) -> list[Path]:
    """The run folders in `output_dir`, oldest first."""
    found = [path for path in Path(output_dir).glob("run-*") if path.name[4:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[4:]))


def keep_config(run_folder: Path | str, config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Write what a run was asked to do, and what it is a run of, into its `config.json`."""
    with new_private_file(Path(run_folder) / CONFIG_FILE) as partial:
        partial.write_text(json.dumps({"config": dict(config), "identity": dict(identity)}, indent=2), encoding="utf-8")


def _column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)
