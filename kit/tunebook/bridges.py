"""Bridges to experiment trackers: what a run emits, in TensorBoard, Weights & Biases or Trackio.

Events come in, live with `trainer.subscribe(bridges.tensorboard("logs"))` or recorded with
`for event in runs.read_events(folder): bridge(event)`. What goes out are the run's settings, its numbers, each at its
step, and its sentences; never weights, rows or checkpoints. `Working` and `CommandReceived` are left out, as they tell
of the moment. Every RunStarted opens a run of the tracker and RunEnded closes it, however training ended.
"""

import importlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from .events import (
    CheckpointSaved,
    CommandReceived,
    EndReason,
    EvalEvent,
    Event,
    Notice,
    RunEnded,
    RunStarted,
    ScoreEvent,
    StepEvent,
    Working,
)

# What each number is called, in every tracker, and the field it is read from. The units are those of `events`.
METRICS: dict[type[Event], dict[str, str]] = {
    StepEvent: {
        "train/loss": "loss",
        "train/learning_rate": "lr",
        "train/grad_norm": "grad_norm",
        "train/tokens_per_second": "tokens_sec",
        "train/peak_gb": "peak_gb",
        "train/num_tokens": "num_tokens",
    },
    EvalEvent: {"eval/loss": "loss", "eval/perplexity": "perplexity"},
}

FLUSH_SECONDS = 5  # how long what happened may take to show in TensorBoard

Listener = Callable[[Event], None]


def tensorboard(folder: Path | str) -> Listener:
    """A listener that writes TensorBoard event files, each run into a new folder inside `folder` named after the time.

    `tensorboard --logdir folder` shows them; that program is a package of its own. Raises ImportError when the package
    that writes them, tensorboardX, is not installed.
    """
    package = _package("tensorboardX")

    def open_run(started: RunStarted) -> _TensorBoardRun:
        writer = package.SummaryWriter(str(_new_folder(Path(folder))), flush_secs=FLUSH_SECONDS)
        return _TensorBoardRun(writer, started)

    return _Bridge("tensorboard", open_run)


def wandb(project: str | None = None, *, config: Mapping[str, Any] | None = None, **init: Any) -> Listener:
    """A listener that logs to Weights & Biases; `config` is added to the run's own, `init` is passed to `wandb.init`.

    The run is the bridge's own, beside any that is open: `wandb.run` does not change. A name in `init` is given to
    every run of the trainer. Raises ImportError when wandb is not installed.
    """
    package = _package("wandb")
    settings = {"reinit": "create_new", **init}

    def open_run(started: RunStarted) -> _WandbRun:
        return _WandbRun(package.init(project=project, config=_facts(started, config), **settings))

    return _Bridge("wandb", open_run)


def trackio(project: str, *, config: Mapping[str, Any] | None = None, **init: Any) -> Listener:
    """A listener that logs to Trackio; `config` is added to the run's own, `init` is passed to `trackio.init`.

    `trackio show` opens its dashboard; `embed=True` would put that into the notebook as well. Trackio ends any run it
    has open when a new one starts. Raises ImportError when trackio is not installed.
    """
    package = _package("trackio")
    settings = {"embed": False, **init}

    def open_run(started: RunStarted) -> _TrackioRun:
        return _TrackioRun(package.init(project, config=_facts(started, config), **settings), package.Markdown)

    return _Bridge("trackio", open_run)


class _TrackerRun(Protocol):
    """An open run of a tracker: what a bridge needs of it. Numbers may be NaN or infinite. Steps never go back."""

    def log(self, numbers: dict[str, float], step: int) -> None: ...

    def note(self, title: str, text: str, step: int) -> None: ...

    def end(self, ended: RunEnded) -> None:
        """Say how training ended; a run closed without it was cut off."""
        ...

    def close(self) -> None: ...


class _Bridge:
    """Translates events to what `_TrackerRun` offers."""

    def __init__(self, name: str, open_run: Callable[[RunStarted], _TrackerRun]):
        self.name = name
        self.open_run = open_run
        self.run: _TrackerRun | None = None
        # The log of a resumed run has the steps it was resumed after in front of its RunStarted.
        self.early: list[Event] = []

    def __repr__(self):
        return f"bridges.{self.name}"

    def __call__(self, event: Event) -> None:
        """Tell the tracker. Raises ValueError for the end of a run whose start was not told."""
        match event:
            case Working() | CommandReceived():
                pass
            case RunStarted():
                self._start(event)
            case RunEnded():
                self._end(event)
            case _ if self.run is None:
                self.early.append(event)
            case _:
                _tell(self.run, event)

    def _start(self, event: RunStarted) -> None:
        if self.run is not None:  # its process was killed, and this is the replay of another run
            self.run.close()
        self.run = self.open_run(event)
        for earlier in self.early:
            _tell(self.run, earlier)
        self.early.clear()

    def _end(self, event: RunEnded) -> None:
        if self.run is None:
            self.early.clear()
            raise ValueError(
                f"{self!r} was told the end of a run (step {event.step}) and not its start; subscribe it before "
                "train(), or replay the events from the first."
            )
        self.run.end(event)
        self.run.close()
        self.run = None


class _TensorBoardRun:
    def __init__(self, writer: Any, started: RunStarted):
        self.writer = writer
        # Indented by four, Markdown shows it as it is.
        text = "".join(f"    {line}\n" for line in json.dumps(_facts(started), indent=2).splitlines())
        self.note("config", text, started.step)

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def note(self, title: str, text: str, step: int) -> None:
        self.writer.add_text(title, text, step)

    def end(self, ended: RunEnded) -> None:
        self.note("end", f"{ended.reason}: {ended.message}", ended.step)

    def close(self) -> None:
        self.writer.close()


class _WandbRun:
    def __init__(self, run: Any):
        self.run = run
        self.failed = True  # until training ends otherwise
        self.step = 0
        self.texts: dict[str, list[str]] = defaultdict(list)  # said at this step, under each title

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.run.log(numbers, step=step)

    def note(self, title: str, text: str, step: int) -> None:
        # A step has one value under one name, so a second sentence must bring the first along.
        if step != self.step:
            self.step = step
            self.texts.clear()
        self.texts[title].append(text)
        self.run.log({title: "\n".join(self.texts[title])}, step=step)

    def end(self, ended: RunEnded) -> None:
        self.run.summary.update(
            {"end_reason": ended.reason.value, "end_message": ended.message, "elapsed_seconds": ended.elapsed}
        )
        self.failed = ended.reason in (EndReason.FAILED, EndReason.NOT_FINITE)

    def close(self) -> None:
        self.run.finish(exit_code=int(self.failed))


class _TrackioRun:
    def __init__(self, run: Any, markdown: Callable[[str], Any]):
        self.run = run
        self.markdown = markdown  # the type of text that the dashboard shows, on its page of reports

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.run.log(numbers, step=step)

    def note(self, title: str, text: str, step: int) -> None:
        self.run.log({title: self.markdown(text)}, step=step)

    def end(self, ended: RunEnded) -> None:
        self.note("end", f"{ended.reason}: {ended.message}", ended.step)

    def close(self) -> None:
        self.run.finish()


def _tell(run: _TrackerRun, event: Event) -> None:
    match event:
        case StepEvent() | EvalEvent():
            run.log(_numbers(event), event.step)
        case ScoreEvent():
            run.log({f"exam/{name}": score for name, score in event.scores.items()}, event.step)
        case Notice():
            run.note("notice", event.text, event.step)
        case CheckpointSaved():
            run.note("checkpoint", event.path, event.step)


def _numbers(event: StepEvent | EvalEvent) -> dict[str, float]:
    """Those of METRICS, and what an objective reports beside its loss: "train/rewards/margins", as TRL calls it."""
    numbers = {name: getattr(event, field) for name, field in METRICS[type(event)].items()}
    if event.metrics:
        numbers.pop("eval/perplexity", None)  # its loss is no mean of nats
        place = "train" if isinstance(event, StepEvent) else "eval"
        numbers |= {f"{place}/{name}": value for name, value in event.metrics.items()}
    return numbers


def _facts(started: RunStarted, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A run's settings and counts side by side, as trackers compare runs by; `more` has the last word."""
    counts = asdict(started)
    settings = counts.pop("config") | counts.pop("objective")
    counts["resumed_after_step"] = counts.pop("step")
    for of_this_machine in ("folder", "discards"):  # its place on a disk, and what the page has a button for
        del counts[of_this_machine]
    return {**settings, **counts, **(more or {})}


def _new_folder(parent: Path) -> Path:
    """Make and return a folder in `parent` named after this second, numbered if there is one already.

    Not `run-001`: in a trainer's `output_dir` that would be taken for one of its runs.
    """
    began = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder, number = parent / began, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = parent / f"{began}_{number}"
        else:
            return folder


def _package(name: str) -> ModuleType:
    """A tracker's package, imported now. Raises ImportError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"This bridge needs {name}; to install it: pip install {name} ({error})") from error
