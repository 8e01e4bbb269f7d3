"""The live view: one anywidget whose traits hold all the browser needs, drawn by dashboard.js and dashboard.css.

Everything crosses as traits, never as one-off messages: a second view, a reloaded page or a front end that was slow to
start reads the same traits and misses nothing. The browser sends one kind of thing back, `{"command": "stop"}` or
another of `events.Command`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import anywidget
import numpy as np
import traitlets

from tunebook.events import Command

from .progress import COLUMNS, Progress
from .wording import headline

# heard: a press is delivered between two steps; unheard: the kernel is busy until the cell ends; absent: nobody to ask.
StopButton = Literal["heard", "unheard", "absent"]

_RECENT_ROWS = 512  # rows resent with every update; older ones are resent once per this many steps
_NOTICES_SHOWN = 20
_SAMPLES_SHOWN = 4


class LiveView(anywidget.AnyWidget):
    """What the browser draws while a run is going on; `publish` tells it the state of a run."""

    _esm = Path(__file__).parent / "dashboard.js"
    _css = Path(__file__).parent / "dashboard.css"

    columns = traitlets.List(traitlets.Unicode(), default_value=list(COLUMNS)).tag(sync=True)
    sealed = traitlets.Bytes().tag(
        sync=True
    )  # the run's first rows, row by row  # (rows, columns) float32, little-endian
    recent = traitlets.Bytes().tag(sync=True)  # the rows after those, in the same layout
    state = traitlets.Dict().tag(sync=True)  # everything that is small, see `state_of`

    def __init__(self, on_command: Callable[[Command], object] | None = None):
        super().__init__()
        self._on_command = on_command
        self._sealed_rows = 0
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        """What a notebook shows that was saved in the middle of a run and opened without its kernel."""
        return "A training run was shown here live. Run the cell again to see one."

    def publish(self, run: Progress) -> None:
        """Send the state of `run`. Cheap enough for a few times a second at any length of history."""
        with self.hold_sync():
            if run.steps - self._sealed_rows >= _RECENT_ROWS:
                self.sealed = _bytes(run.rows())
                self._sealed_rows = run.steps
            self.recent = _bytes(run.rows(self._sealed_rows))
            self.state = state_of(run, can_send=self._on_command is not None)

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        asked = content.get("command") if isinstance(content, dict) else None
        if self._on_command is not None and asked in list(Command):
            self._on_command(Command(asked))


def state_of(run: Progress, *, can_send: bool) -> dict[str, Any]:
    """The small part of a run as JSON; a number that is not finite is None, because JSON has no NaN."""
    last, best, hidden = run.last, run.best_eval, max(len(run.notices) - _NOTICES_SHOWN, 0)
    return {
        "phase": "ended" if run.ended else "stopping" if run.stop_heard_at is not None else "running",
        "headline": headline(run),
        "model": run.started.model if run.started else "",
        "awaited": bool(run.started and run.started.awaited),
        "stop": _stop_button(run, can_send),
        "paused": run.paused,
        "offered": _offered(run),
        "pending": sorted(run.pending),
        "working": [run.working.what, run.working.done, run.working.total] if run.working else None,
        "step": last.step if last else 0,
        "total_steps": run.total_steps,
        "loss": _finite(last.loss) if last else None,
        "grad_norm": _finite(last.grad_norm) if last else None,
        "lr": last.lr if last else None,
        "tokens_sec": _finite(last.tokens_sec) if last else None,
        "peak_gb": _finite(last.peak_gb) if last else None,
        "elapsed": last.elapsed if last else 0.0,
        "seconds_left": run.seconds_left,
        "evals": [[event.step, _finite(event.loss)] for event in run.evals],
        "best_eval": [best.step, best.loss] if best else None,
        "clip_norm": run.clip_norm,
        "ema_decay": run.ema_decay,
        "samples": [[sample.step, sample.prompt, sample.text] for sample in run.last_samples[-_SAMPLES_SHOWN:]],
        "notices": [[notice.step, notice.text] for notice in run.notices[hidden:]],
        "hidden_notices": hidden,
    }


def _stop_button(run: Progress, can_send: bool) -> StopButton:
    if not can_send or run.started is None:
        return "absent"
    return "heard" if run.started.awaited else "unheard"


def _offered(run: Progress) -> list[str]:
    """What can be asked of a run between two steps, besides to stop: what there is nothing to do for is left out."""
    if run.started is None:
        return []
    offered = [Command.RESUME if run.paused else Command.PAUSE]
    offered += [Command.EVALUATE] if run.started.eval_rows else []
    offered += [Command.SAMPLE]
    return [*offered, Command.SAVE] if run.started.config.get("output_dir") else list(offered)


def _bytes(rows: np.ndarray) -> bytes:
    with np.errstate(over="ignore"):  # beyond float32 is infinite on the chart
        return rows.astype("<f4").tobytes()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
