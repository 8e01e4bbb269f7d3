"""The dashboard in a notebook: a placeholder before a run, a live view while it runs, a picture and a table after it.

Two outputs hold it, one below the other in the same cell and each under its own display id, so both are replaced in
place from whichever cell trains: a front end shows one type of an output only, and the picture and the table are two.
The live view stands there only while a run is going on, so what is saved afterwards is no widget without a kernel.
"""

import time
import uuid
from collections.abc import Callable

from IPython.display import display, update_display

from tunebook.events import Command, Event, RunEnded

from .freeze import Bundle, frozen_picture, frozen_table
from .live import LiveView
from .progress import Progress
from .throttle import Throttle

_EMPTY: Bundle = {"text/html": "", "text/plain": ""}


class NotebookScreen:
    """Owns the outputs of one dashboard. With `live=False` nobody is watching and only the end of a run is shown."""

    def __init__(self, *, live: bool, on_command: Callable[[Command], object] | None):
        self._live = live
        self._on_command = on_command
        self._throttle = Throttle()
        self._view: LiveView | None = None
        self._shown = False
        self._upper = f"tunebook-{uuid.uuid4().hex}"
        self._lower = f"{self._upper}-table"

    def show(self, run: Progress) -> None:
        """Put the dashboard into the cell that is running now. Shown in several cells, all of them are kept current."""
        self._put(run, display)
        self._shown = True

    def begin(self, run: Progress) -> None:
        """Show a run that has just started: where the dashboard already is, else in the cell that is running now."""
        older = self._view
        if self._live:
            self._view = LiveView(self._on_command)
            self._view.publish(run)
        self._put(run, update_display if self._shown else display)
        self._shown = True
        if older is not None:
            older.close()

    def update(self, run: Progress, event: Event) -> None:
        """Show `event`, which `run` already holds; the last event of a run freezes the outputs."""
        if isinstance(event, RunEnded):
            self._freeze(run)
        elif self._view is not None and self._throttle.allows(event, time.monotonic()):
            self._view.publish(run)

    def retire(self, run: Progress) -> None:
        """Make way for a newer dashboard of the same trainer; a run that has ended stays as it is."""
        if self._shown and run.ended is None:
            update_display(_text("A newer dashboard shows this trainer."), raw=True, display_id=self._upper)
        if self._view is not None:
            self._view.close()
            self._view = None

    def _freeze(self, run: Progress) -> None:
        # Drawing the picture takes a moment, so the view says at once that the run is over. It is left open: a page
        # loaded again during the run has lost the display id, but finds the view as soon as the cell has ended.
        if self._view is not None:
            self._view.publish(run)
        self._put(run, update_display)

    def _put(self, run: Progress, put: Callable[..., object]) -> None:
        """Fill both outputs as the run stands, with `display` (new outputs) or `update_display` (those there)."""
        if run.ended is not None:
            picture, metadata = frozen_picture(run)
            put(picture, raw=True, metadata=metadata, display_id=self._upper)
            put(frozen_table(run), raw=True, display_id=self._lower)
        elif self._view is not None:
            put(self._view, display_id=self._upper)
            put(_EMPTY, raw=True, display_id=self._lower)
        else:
            waiting = (
                "Training; the curves appear here when the run ends." if run.running else "Waiting for a run to start."
            )
            put(_text(waiting), raw=True, display_id=self._upper)
            put(_EMPTY, raw=True, display_id=self._lower)


def _text(sentence: str) -> Bundle:
    return {"text/plain": sentence}
