"""The live view: one anywidget whose traits hold all the browser needs, drawn by the scripts in `view/`.

Everything crosses as traits, never as one-off messages: a second view, a reloaded page or a front end that was slow to
start reads the same traits and misses nothing. The browser sends two kinds of message back: `{"ready": true}` from
every page that shows the view, and `{"command": "stop"}` or another of `events.Command`, with a `value` where one is
needed.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import anywidget
import numpy as np
import traitlets

from tunebook.events import Command, Request

from ..esm import VIEW, esm
from .freeze import Bundle
from .going_on import lost_kernel, stop_means, without_page
from .metric_charts import EXAM, MOST_CHARTS
from .progress import COLUMNS, Progress
from .wording import headline

# heard: a press is delivered between two steps; unheard: the kernel is busy until the cell ends; absent: nobody to ask.
Buttons = Literal["heard", "unheard", "absent"]

# live: follows a run; replay: plays one that is over, with a clock of its own.
Mode = Literal["live", "replay"]

_NOTICES_SHOWN = 20
_STEPS_SAMPLED = 60  # of a prompt; more are thinned out evenly, and a slider has no finer places anyway


class LiveView(anywidget.AnyWidget):
    """What the browser draws of a run; `publish` tells it the state of the run."""

    _esm = esm("dashboard.js")
    _css = VIEW / "dashboard.css"

    mode = traitlets.Unicode("live").tag(sync=True)
    columns = traitlets.List(traitlets.Unicode(), default_value=list(COLUMNS)).tag(sync=True)
    # The run's first rows, row by row, and those after them.  # (rows, columns) float32, little-endian
    sealed = traitlets.Bytes().tag(sync=True)
    recent = traitlets.Bytes().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)  # what changes all the time, see `state_of`
    record = traitlets.Dict().tag(sync=True)  # what is added to now and then, see `record_of`
    samples = traitlets.List().tag(sync=True)  # [step, prompt, text] of what the model wrote
    # The outputs a run has left, for a page that was loaded again and is not told of them: {} or, of the view with the
    # id "of", "outputs": [data, metadata] of the upper and of the lower one.
    frozen = traitlets.Dict().tag(sync=True)
    picks = traitlets.List().tag(sync=True)  # from the page: {"prompt", "pick"} of each blind choice made

    def __init__(
        self,
        on_request: Callable[[Request], object] | None = None,
        *,
        on_ready: Callable[[], object] = lambda: None,
        mode: Mode = "live",
    ):
        super().__init__(mode=mode)
        self._on_request = on_request
        self._on_ready = on_ready
        self._in_place = "A training run is shown here live."
        self._sealed_rows = 0
        self._samples_seen = -1
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        """What a notebook shows that was saved in the middle of a run and opened without its kernel."""
        return self._in_place

    def publish(self, run: Progress) -> None:
        """Send the state of `run`. Cheap enough for a few times a second at any length of history."""
        self._in_place = without_page(run)
        with self.hold_sync():
            names = list(run.columns)
            if names != self.columns or run.steps - self._sealed_rows >= _recent_rows(run.steps):
                self.columns, self.sealed = names, _bytes(run.rows())
                self._sealed_rows = run.steps
            self.recent = _bytes(run.rows(self._sealed_rows))
            self.record = record_of(run)
            if len(run.samples) != self._samples_seen:
                self._samples_seen = len(run.samples)
                self.samples = _timeline(run)
            self.state = state_of(run, can_send=self._on_request is not None)

    def leave(self, *outputs: tuple[Bundle, dict[str, Any]]) -> None:
        """Tell the page which outputs stand in place of this view when the run has ended."""
        self.frozen = {"of": self.model_id, "outputs": [list(output) for output in outputs]}

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        match content:
            case {"ready": True}:
                self._on_ready()
            case {"command": str(name)} if self._on_request is not None and name in list(Command):
                try:
                    request = Request(Command(name), content.get("value"))
                except (ValueError, TypeError):
                    return  # the page checks what is typed; this was not sent by it
                self._on_request(request)


def state_of(run: Progress, *, can_send: bool) -> dict[str, Any]:
    """Where a run stands, as JSON. It is different after every event, so that every `publish` reaches the page."""
    return {
        "phase": "ended" if run.ended else "stopping" if run.stop_heard_at is not None else "running",
        "headline": headline(run),
        "model": run.started.model if run.started else "",
        "stop": _buttons(run, can_send),
        "offered": _offered(run),
        "pending": sorted(run.pending),
        "working": [run.working.what, run.working.done, run.working.total] if run.working else None,
        "step": run.last.step if run.last else 0,
        "total_steps": run.total_steps,
        "elapsed": run.ended.elapsed if run.ended else run.last.elapsed if run.last else 0.0,
        "seconds_left": run.seconds_left,
        "stop_means": stop_means(run),
        "discards": run.started is not None and run.started.discards,
        "lost": lost_kernel(run),
        "elsewhere": run.attached_to is not None,
        "told": run.told,
    }


def record_of(run: Progress) -> dict[str, Any]:
    """What a run has said beside its steps, as JSON; a number that is not finite is None, because JSON has no NaN."""
    best, known, hidden = run.best_eval, run.best_scores, max(len(run.notices) - _NOTICES_SHOWN, 0)
    return {
        "evals": [[event.step, _finite(event.loss)] for event in run.evals],
        "asked_evals": [event.step for event in run.evals if event.asked],
        "best_eval": [best.step, best.loss] if best else None,
        "best_score": [f"{EXAM}{run.yardstick.metric}", [list(best) for best in known]] if known else None,
        "checkpoints": [event.step for event in run.checkpoints],
        "rates": [[event.step, event.learning_rate] for event in run.rates],
        "learning_rate": run.learning_rate,
        "clip_norm": run.clip_norm,
        "loss_unit": run.started.loss_unit if run.started else None,
        "memory_limit_gb": run.started.memory_limit_gb if run.started else None,
        "notices": [[notice.step, notice.text] for notice in run.notices[hidden:]],
        "hidden_notices": hidden,
        "objective": run.started.objective.get("objective") if run.started else None,
        "charts": [chart.as_plain() for chart in run.charts[:MOST_CHARTS]],
        "hidden_charts": max(len(run.charts) - MOST_CHARTS, 0),
        "held_out": {
            metric: [[step, _finite(value)] for step, value in run.held_out(metric)] for metric in run.metrics
        },
        "lanes": _lanes(run),
        "alarms": [[notice.step, notice.text] for notice in run.notices if notice.alarm],
        "ran_away": [away.step, away.text, away.go_back_to] if (away := run.ran_away) else None,
    }


def _recent_rows(steps: int) -> int:
    """Rows resent with every update, at most: an eighth of the run, so that sealing all of it again stays rare."""
    return max(512, steps // 8)


def _lanes(run: Progress) -> list[list[Any]]:
    """[name, tokens/s, share waited, share exchanging, peak GB] of each process, where there are several."""
    told = run.ranks
    if told is None:
        return []
    return [
        [name, *map(_finite, numbers)]
        for name, *numbers in zip(
            told.names, told.tokens_sec, told.waiting, told.exchanging, told.peak_gb, strict=False
        )
    ]


def _timeline(run: Progress) -> list[list[Any]]:
    """[step, prompt, text] of each prompt's samples, the first and the last among them."""
    shown = []
    for prompt in dict.fromkeys(sample.prompt for sample in run.samples):
        taken = [sample for sample in run.samples if sample.prompt == prompt]
        places = np.unique(np.linspace(0, len(taken) - 1, min(len(taken), _STEPS_SAMPLED)).round().astype(int))
        shown += [[taken[place].step, prompt, taken[place].text] for place in places]
    return shown


def _buttons(run: Progress, can_send: bool) -> Buttons:
    if not can_send or run.started is None:
        return "absent"
    return "heard" if run.started.awaited or run.attached_to else "unheard"


def _offered(run: Progress) -> list[str]:
    """What can be asked of a run between two steps, besides to end: what there is nothing to do for is left out."""
    if run.started is None:
        return []
    offered = [Command.RESUME if run.paused else Command.PAUSE]
    offered += [Command.EVALUATE] if run.started.eval_rows else []
    offered += [Command.EXAM] if run.started.exam_rows else []
    offered += [Command.SAMPLE]
    offered += [Command.SAVE] if run.started.config.get("output_dir") else []
    return [*offered, Command.LEARNING_RATE] if run.learning_rate else list(offered)


def _bytes(rows: np.ndarray) -> bytes:
    with np.errstate(over="ignore"):  # beyond float32 is infinite on the chart
        return rows.astype("<f4").tobytes()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
