"""`Dashboard`: give it a trainer and it shows the run, live in a notebook or as log lines in a terminal.

It subscribes to the trainer's events and sends back the commands of its buttons. It never touches the model, prints
nothing from a button press, and leaves a picture and a table in the notebook when the run ends, however it ends. A run
in another process is shown and steered in the same way, from its first step. Given a run that is over, it shows that
one, to be looked at closely or, by `replay`, to be watched.
"""

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.getipython import get_ipython

from tunebook.events import Command, EndReason, Event, Notice, Request, RunEnded, RunStarted, StepEvent

from .elsewhere import RunLike, progress_of, run_at
from .notebook import NotebookScreen
from .progress import Progress
from .recorded import Recorded, recorded_run
from .terminal import TerminalScreen

if TYPE_CHECKING:
    from .live import Mode

Choice = Literal["widget", "html", "text", "off"]


class TrainerLike(Protocol):
    """What a dashboard needs of a trainer. It must also be hashable and weakly referable, as plain classes are."""

    def subscribe(self, fn: Callable[[Event], None], /, *, shows_progress: bool) -> object:
        """Call `fn` with every event, in order, on the main thread, and draw no progress bar beside it."""
        ...

    def send(self, command: Command, value: float | None = None, /) -> object:
        """Leave a command to be carried out between two steps; returns at once. `value` is a learning rate."""
        ...


class Screen(Protocol):
    """Where a run is shown. `update` is called for every event once `begin` was, after the run has taken it in."""

    def show(self, run: Progress) -> None: ...
    def begin(self, run: Progress) -> None: ...
    def update(self, run: Progress, event: Event) -> None: ...
    def bring_back(self, run: Progress, mode: "Mode") -> None: ...
    def retire(self, run: Progress) -> None: ...
    @property
    def picks(self) -> list[dict[str, str]]: ...


class Dashboard:
    """Shows the runs of one trainer, one run in another process, or one that is over: `source`.

        >>> board = Dashboard(trainer)
        >>> result = trainer.train()

    In a notebook it appears where it is the last expression of a cell or where `show()` is called; a run that starts
    before either shows it in its own cell. A later run of the same trainer takes the same place. Of several dashboards
    on one trainer the newest shows it, so a cell can be run again. A run that is over is named by its folder, its
    events.jsonl, what `Trainer.train` returned or what `load_run` read; it is shown live, to be zoomed into.

    A run in another process is named by its handle (`trainer.start()`, `tunebook.attach`) or, while it goes on, by its
    folder: all of it is shown, as it goes on and with buttons that it hears, and when it ends the picture is left.

    The environment variable TUNEBOOK_UI chooses the form: `widget` (a live view even if nobody seems to be watching),
    `html` (a small table), `text` (log lines) or `off`. Unset, a notebook gets the live view, a notebook executed
    without a person (nbclient, nbmake, papermill) only the frozen result, and everything else log lines.
    """

    def __init__(self, source: TrainerLike | RunLike | Recorded | None = None):
        self._run = Progress()
        self._mode: Mode | None = None  # how a run that is over is shown; None: runs are yet to come
        self._retired = False
        self._trainer: TrainerLike | RunLike | None = None
        self._elsewhere = run_at(source) if isinstance(source, Path | str) else None
        if isinstance(source, RunLike):
            self._elsewhere = source
        if self._elsewhere is not None:
            self._trainer, self._run = self._elsewhere, progress_of(self._elsewhere)
        elif isinstance(source, Recorded):
            self._run, self._mode = recorded_run(source), "live"
        else:
            self._trainer = source
        self._screen = _screen(on_request=None if self._trainer is None else self._ask)
        if self._trainer is not None:
            _supersede(self._trainer, self)
            self._trainer.subscribe(self.on_event, shows_progress=True)

    def show(self) -> None:
        """Put the dashboard into the output of the cell that is running."""
        if self._screen is None:
            return
        if self._mode is not None:
            self._screen.bring_back(self._run, self._mode)
        else:
            self._screen.show(self._run)

    def thaw(self) -> None:
        """Show the run that has just ended live once more, in the cell that is running. Raises ValueError before."""
        if self._run.ended is None:
            raise ValueError("There is no run that has ended; thaw() brings one back, show() shows one to come.")
        if self._screen is not None:
            self._screen.bring_back(self._run, "live")

    @property
    def picks(self) -> list[dict[str, str]]:
        """The choices made in the blind comparison: {"prompt": ..., "pick": "tuned", "base" or "neither"}."""
        return [] if self._screen is None else self._screen.picks

    def on_event(self, event: Event) -> None:
        """Take in one event. A RunStarted, or any event after a run has ended, begins a new run."""
        if self._retired or self._screen is None:
            return
        begins = isinstance(event, RunStarted) or not self._run.running
        if begins:
            self._run = Progress() if self._elsewhere is None else progress_of(self._elsewhere, but=event)
            self._run.trainer = _name_of(self._trainer)
        self._run.add(event)
        if self._elsewhere is not None and self._run.started is None:
            return  # what is said before a run begins is part of its record when it has
        if begins:
            self._screen.begin(self._run)
        self._screen.update(self._run, event)

    def on_step(
        self,
        step: int,
        total_steps: int,
        loss: float,
        lr: float,
        tokens_sec: float,
        peak_gb: float,
        elapsed: float,
        num_tokens: int,
        grad_norm: float | None = None,
    ) -> None:
        """A step callback for any trainer that calls back with these nine values after an optimizer step.

        Such a trainer says nothing of its end: the run counts as finished at its last step, and one that ended early
        is over when step numbers begin again or `finish` is called.
        """
        if self._run.last is not None and self._run.running and step <= self._run.last.step:
            self.finish()
        self.on_event(
            StepEvent(
                step=step,
                total_steps=total_steps,
                loss=float(loss),
                lr=float(lr),
                tokens_sec=float(tokens_sec),
                peak_gb=float(peak_gb),
                elapsed=float(elapsed),
                num_tokens=num_tokens,
                grad_norm=float("nan") if grad_norm is None else float(grad_norm),
            )
        )
        if step >= total_steps:
            self.finish()

    def finish(self) -> None:
        """End a run that was followed through `on_step` and leave its picture and table. Without one, does nothing."""
        last = self._run.last
        if last is None or not self._run.running:
            return
        reason = EndReason.FINISHED if last.step >= last.total_steps else EndReason.STOPPED
        self.on_event(
            RunEnded(step=last.step, total_steps=last.total_steps, reason=reason, message="", elapsed=last.elapsed)
        )

    def _ask(self, request: Request) -> None:
        """Pass on the press of a button, unless it crossed the end of the run on its way."""
        if self._trainer is None or not self._run.running:
            return
        values = () if request.value is None else (request.value,)  # a trainer of another make may know none
        if self._elsewhere is None:
            self._trainer.send(request.command, *values)
            return
        try:
            self._elsewhere.send(request.command, *values)
        except RuntimeError:
            return  # it has ended in the meantime, which it tells by itself
        except OSError as error:
            text = f"{request.command} could not be left in {self._elsewhere.run_folder} ({error.strerror})."
            self.on_event(Notice(step=self._run.last.step if self._run.last else 0, text=text))

    def _retire(self) -> None:
        self._retired = True
        if self._screen is not None:
            self._screen.retire(self._run)

    def _ipython_display_(self) -> None:
        self.show()


def replay(run: Recorded) -> Dashboard:
    """Play a recorded `run`, its speed and place under sliders; named as in `Dashboard`. Needs no MLX and no kernel.

        >>> player = replay("runs/run-001")

    The run plays in the browser. Raises FileNotFoundError where there is no log.
    """
    dashboard = Dashboard()
    dashboard._run, dashboard._mode = recorded_run(run), "replay"
    return dashboard


# Running a cell again makes a second dashboard on the same trainer. Weak on both sides: a trainer holds a model.
_newest: weakref.WeakKeyDictionary[TrainerLike | RunLike, weakref.ref[Dashboard]] = weakref.WeakKeyDictionary()


def _supersede(trainer: TrainerLike | RunLike, dashboard: Dashboard) -> None:
    """Make `dashboard` the one that shows `trainer`."""
    older = _newest.get(trainer)
    _newest[trainer] = weakref.ref(dashboard)
    older = older() if older is not None else None
    if older is not None:
        older._retire()


def _name_of(trainer: TrainerLike | RunLike | None) -> str:
    """What the notebook calls a trainer; `trainer` where it has no name there."""
    shell = get_ipython()
    names = shell.user_ns.items() if shell is not None and trainer is not None else ()
    return next((name for name, value in names if value is trainer and not name.startswith("_")), "trainer")


def _screen(on_request: Callable[[Request], object] | None) -> Screen | None:
    """The screen for this process: what TUNEBOOK_UI says, else what there is to show a run on."""
    choice = os.environ.get("TUNEBOOK_UI")
    if choice not in (None, *get_args(Choice)):
        raise ValueError(f"TUNEBOOK_UI is {choice!r}; set it to one of {', '.join(get_args(Choice))}, or unset it.")
    shell = get_ipython()
    if choice == "off":
        return None
    if choice == "text" or not isinstance(shell, ZMQInteractiveShell):
        return TerminalScreen()
    if choice != "html":
        choice = "widget" if choice == "widget" or _someone_is_there(shell) else "end"
    return NotebookScreen(choice, on_request=on_request)


def _someone_is_there(shell: ZMQInteractiveShell) -> bool:
    """Whether the client that runs this cell could answer a question; programs that execute notebooks say they cannot.

    `allow_stdin` of the execute request, jupyter-client.readthedocs.io/en/stable/messaging.html#execute; the protocol's
    default is True. A widget nobody sees would leave its whole state in the executed file.
    """
    content = shell.get_parent().get("content", {})
    return content.get("allow_stdin", True)
