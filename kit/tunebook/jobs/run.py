"""A run in a process of its own, held from here: what it says, what is asked of it, and what came of it.

Everything is read from its folder and asked through it, so that whoever comes later, after a restart of the kernel or
from another notebook, holds it just as well.
"""

import asyncio
import subprocess
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final
from weakref import WeakSet

from ..events import Command, EndReason, Event, RunEnded, RunStarted, StepEvent
from ..runs.attached import SECONDS_BETWEEN_LOOKS, AttachedRun
from ..runs.listeners import Listener, StepCallback
from ..runs.lock import is_held
from ..runs.looked_after.state import State, is_supervised, read_state
from ..runs.looked_after.wanted import let_go, want
from ..runs.result import TrainResult, result_of
from .layout import JOB, Ended, NoJob, is_job, read_ended
from .life import read_beat
from .processes import start_supervisor

if TYPE_CHECKING:
    from .work import HoldsModel


class RunFailed(RuntimeError):
    """A run in a process of its own that came to no result; the message says why, and what to do."""


_ENDED_AS = {
    EndReason.FINISHED: "finished",
    EndReason.EARLY_STOPPED: "finished",
    EndReason.FAILED: "failed",
    EndReason.NOT_FINITE: "failed",
}


@final
class Run:
    """A run in a process of its own, as `trainer.start()` gives it.

        >>> run = trainer.start()
        >>> run.send("learning_rate", 5e-5)
        >>> result = run.result()

    `run_folder` is where it is kept, as it was typed, `events` what it has said so far. It goes on while this kernel
    does something else; in a notebook its listeners are told between and during awaited cells, in a script while it is
    waited for.
    """

    def __init__(self, folder: Path | str, model: "HoldsModel | None" = None):
        """`folder` holds a job that was begun; `model`, where there is one, takes over the weights. Raises NoJob."""
        self.run_folder = Path(folder)
        self._place = self.run_folder.expanduser().absolute()
        if not is_job(self._place):
            raise NoJob(f"There is no job in {folder}; a run that was trained in a kernel is seen by tunebook.attach.")
        self._model = model
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._watched = AttachedRun(self._place, is_alive=self._is_there)
        known.add(self)

    def begin(self) -> None:
        """Have a supervisor look after it, and want it for as long as this process lives."""
        want(self._place)
        self._supervisor = start_supervisor(self._place)
        _supervisors.append(self._supervisor)

    def __repr__(self):
        self._watched.poll()
        state = self.state
        said = [str(self.run_folder), state]
        step = next((event for event in reversed(self.events) if isinstance(event, StepEvent)), None)
        total = next((event.total_steps for event in reversed(self.events) if isinstance(event, RunStarted)), None)
        if total is not None:
            said.append(f"step {step.step if step is not None else 0} of {total}")
        if step is not None:
            said.append(f"loss {step.loss:.4f}")
        why = f". {self.message}" if self.message else "."
        return f"A run in {', '.join(said)}{why}"

    @property
    def events(self) -> Sequence[Event]:
        """What it has said, as of the last look."""
        return self._watched.events

    @property
    def state(self) -> str:
        """'waiting' for its turn, 'running', 'pausing' before it is begun again, 'finished', 'stopped', 'failed', or
        'died' where those who looked after it are gone.
        """
        state, alive = self._said, self._is_alive()
        if alive:
            return "waiting" if state is None or state.state == "ended" else state.state
        if is_held(self._place):
            return "running"
        if (ended := self._ended) is not None:
            return _ENDED_AS.get(EndReason(ended.reason), "stopped")
        if state is None or state.state != "ended":
            return "died"
        return "failed" if state.begun else "stopped"

    @property
    def message(self) -> str:
        """How it ended, or when it begins again and why, in a sentence; empty while there is nothing to say."""
        return "" if self._said is None else self._said.in_words

    @property
    def pid(self) -> int | None:
        """Of the process that trains it, the first one where there are several; None while none does."""
        beat = read_beat(self._place) if is_held(self._place) else None
        return None if beat is None else beat.pid

    @property
    def _ended(self) -> Ended | None:
        """How its run ended; None where its process left without a word, also after an earlier end."""
        ended, state = read_ended(self._place), self._said
        told = next((event.message for event in reversed(self.events) if isinstance(event, RunEnded)), None)
        is_the_last = (state is not None and state.ended_well) or (ended is not None and told == ended.message)
        return ended if is_the_last else None

    @property
    def _said(self) -> State | None:
        return read_state(self._place)

    def subscribe(self, listener: Listener, *, shows_progress: bool = False) -> None:
        """Have `listener(event)` called with every event from now on, in order; those before are in `events`."""
        self._watched.subscribe(listener, shows_progress=shows_progress)

    def add_step_callback(self, callback: StepCallback) -> None:
        """Have `callback` called with the nine values of every step from now on, as a trainer's step callback is."""
        self._watched.add_step_callback(callback)

    def poll(self) -> None:
        """Take in what is new, and tell the listeners."""
        self._watched.poll()

    def send(self, command: Command | str, value: float | None = None) -> None:
        """Leave a command for the run, as `Trainer.send` does; it is heard within a second.

        A run that waits for its turn can be stopped, and hears nothing else. Raises RuntimeError where nobody hears.
        """
        self._watched.send(command, value)

    def stop(self) -> None:
        """End it with the step in progress; take it out of the queue where it waits."""
        self.send(Command.STOP)

    def wait(self, timeout: float | None = None) -> "Run":
        """Wait until it is over, however that is, and give this handle back. Raises TimeoutError after so many seconds.

        Being interrupted ends the waiting and not the run.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._is_over():
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{self!r} It goes on.")
            time.sleep(SECONDS_BETWEEN_LOOKS)
            self.poll()
        self.poll()
        return self

    def __await__(self) -> Generator[Any, None, TrainResult]:
        return self._awaited().__await__()

    async def _awaited(self) -> TrainResult:
        while not self._is_over():
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            self.poll()
        return self.result()

    def result(self) -> TrainResult:
        """How it went, once it is over; the live model has the weights then, as `Trainer.train` leaves them.

        Raises RunFailed where it came to no result: the model is then as it was.
        """
        self.wait()
        ended = self._ended
        if ended is None or ended.reason == EndReason.FAILED:
            raise RunFailed(self.message or f"{self!r} Those who looked after it are gone; {self._how_to_go_on()}")
        if self._model is not None:
            _take_over(self._model, self._place)
            self._model.run_events = self.events
        return result_of(self.events, self._place)

    def _how_to_go_on(self) -> str:
        return f"python -m tunebook train {self.run_folder} goes on from its last checkpoint."

    def _is_over(self) -> bool:
        if self._is_there():
            return False
        let_go(self._place)
        return True

    def _is_there(self) -> bool:
        """Whether somebody looks after it, or it goes on by itself."""
        return self._is_alive() or is_held(self._place)

    def _is_alive(self) -> bool:
        """Whether somebody looks after it, or will in a moment."""
        if self._supervisor is not None and self._supervisor.poll() is None:
            return True
        return is_supervised(self._place)


def find(folder: Path | str, model: "HoldsModel | None" = None) -> Run:
    """The run in a folder that `trainer.start` made, from any process: one that goes on is wanted by this one too.

        >>> run = jobs.find("runs/run-003", model)

    `model`, made again as it was, takes over the weights in `run.result()`. Raises NoJob where there is no such run.
    """
    run = Run(folder, model)
    place = run.run_folder.expanduser()
    if is_supervised(place) or is_held(place):
        want(place)
    return run


def _take_over(model: "HoldsModel", folder: Path) -> None:
    """Put the weights of a result into a live model. Raises ValueError for a model that trains others."""
    from ..models.tensors import flat  # here: who only watches a run needs no MLX
    from .results import read_weights

    weights, here = read_weights(folder), flat(model.loaded.module.trainable_parameters())
    different = [name for name, array in weights.items() if name not in here or here[name].shape != array.shape]
    if different or len(weights) != len(here):
        raise ValueError(
            f"The model at hand is not the one that {folder / JOB} was made of ({len(here)} trained tensors here, "
            f"{len(weights)} there); make it again as it was, with the same adapters, and pass that."
        )
    model.loaded.module.load_weights(list(weights.items()), strict=False)


known: "WeakSet[Run]" = WeakSet()  # the handles of this process
_supervisors: list[subprocess.Popen[bytes]] = []  # of this process, so that none is waited for by nobody
