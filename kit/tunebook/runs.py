"""Run folders: one numbered folder per training run, with every event of the run as a line of `events.jsonl`.

What the model wrote on the way is in `samples.jsonl` too, for whoever wants that alone.

What comes in are events, what goes out is a file a person, a dashboard or another process can read while the run goes
on, and `load`, which reads it back as columns. A file called `STOP` that anyone puts into the folder ends the run.
Standard library and NumPy only, so a run can be looked at where there is no MLX.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .atomic import new_file
from .events import (
    EvalEvent,
    Event,
    LearningRateChanged,
    Notice,
    RunEnded,
    RunStarted,
    SampleEvent,
    StepEvent,
    Working,
    from_json,
    to_json,
)

EVENTS_FILE = "events.jsonl"
SAMPLES_FILE = "samples.jsonl"
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
        return f"A run of {self.started.model}: step {reached} of {self.started.total_steps}{loss}; {state}."


def load(path: Path | str) -> RunHistory:
    """Read back a run from its folder or its events.jsonl; a last line that is still being written is left out.

    Raises FileNotFoundError where there is no log, ValueError for one that no run has begun or that holds a line which
    is no event.
    """
    file = _log_of(Path(path))
    events = list(_events_in(file))
    started = [event for event in events if isinstance(event, RunStarted)]
    if not started:
        raise ValueError(f"{file} does not say what run it is of: no run has begun in it, or its start was cut off.")
    ended = [event for event in events if isinstance(event, RunEnded)]
    steps = [event for event in events if isinstance(event, StepEvent)]
    evals = [event for event in events if isinstance(event, EvalEvent)]
    return RunHistory(
        path=file,
        started=started[-1],
        ended=ended[-1] if ended else None,
        notices=tuple(event for event in events if isinstance(event, Notice)),
        samples=tuple(event for event in events if isinstance(event, SampleEvent)),
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
    """Make and return the next free `run-001`, `run-002`, ... in `output_dir`."""
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name[4:]) for path in run_folders(output_dir)), default=0)
    while True:
        try:
            (output_dir / f"run-{number:03d}").mkdir()
        except FileExistsError:  # another process took the number between the look and the mkdir
            number += 1
        else:
            return output_dir / f"run-{number:03d}"


def run_folders(output_dir: Path | str) -> list[Path]:
    """The run folders in `output_dir`, oldest first."""
    found = [path for path in Path(output_dir).glob("run-*") if path.name[4:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[4:]))


def keep_config(run_folder: Path | str, config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Write what a run was asked to do, and what it is a run of, into its `config.json`."""
    with new_file(Path(run_folder) / CONFIG_FILE) as partial:
        partial.write_text(json.dumps({"config": dict(config), "identity": dict(identity)}, indent=2), encoding="utf-8")


def event_log(run_folder: Path | str) -> Callable[[Event], None]:
    """A listener that appends each event to the run's `events.jsonl`, flushed line by line, and samples to their own.

    `Working` is left out: it says what is going on, not what happened.
    """
    run_folder = Path(run_folder)

    def keep(event: Event) -> None:
        if not isinstance(event, Working):
            _append(run_folder / EVENTS_FILE, to_json(event))
        if isinstance(event, SampleEvent):
            _append(run_folder / SAMPLES_FILE, json.dumps(asdict(event), ensure_ascii=False))

    return keep


def rewind(run_folder: Path | str, step: int) -> list[Event]:
    """Take out of a run's log what came after `step`, and its start and end, and return what is left.

    A run that is resumed at `step` takes the steps after it once more, so they must not be in the log twice.
    """
    run_folder = Path(run_folder)
    if not (run_folder / EVENTS_FILE).exists():
        return []
    kept: list[Event] = [
        event
        for event in read_events(run_folder)
        if event.step <= step and not isinstance(event, RunStarted | RunEnded)
    ]
    with new_file(run_folder / EVENTS_FILE) as partial:
        partial.write_text("".join(to_json(event) + "\n" for event in kept), encoding="utf-8")
    samples = [event for event in kept if isinstance(event, SampleEvent)]
    with new_file(run_folder / SAMPLES_FILE) as partial:
        lines = (json.dumps(asdict(event), ensure_ascii=False) + "\n" for event in samples)
        partial.write_text("".join(lines), encoding="utf-8")
    return kept


def read_events(path: Path | str) -> Iterator[Event]:
    """The events of a run, from its folder or its events.jsonl; a last line that is still being written is left out.

    Raises FileNotFoundError where there is no log.
    """
    yield from _events_in(_log_of(Path(path)))


def learning_rates(run_folder: Path) -> dict[int, float]:
    """Each change of the learning rate the log tells of, by the step it was made after; none where there is no log."""
    if not (run_folder / EVENTS_FILE).exists():
        return {}
    changes = (event for event in read_events(run_folder) if isinstance(event, LearningRateChanged))
    return {change.step: change.learning_rate for change in changes}


def _log_of(path: Path) -> Path:
    file = path / EVENTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no run at {path}: {file} does not exist. Pass a run folder, e.g. runs/run-001."
        )
    return file


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _events_in(path: Path) -> Iterator[Event]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith("\n"):
                try:
                    event = from_json(line)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error
                yield event


def _column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)
