"""The dashboard in a notebook: a placeholder before a run, a live view while it runs, a picture and a table after it.

Two outputs hold it, one below the other in the same cell and each under its own display id, so both are replaced in
place from whichever cell trains: a front end shows one type of an output only, and the picture and the table are two.
The live view stands there only while a run is going on, so what is saved afterwards is no widget without a kernel.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from IPython.display import display, update_display

from tunebook.events import CheckpointSaved, Event, Request, RunEnded

from .freeze import Bundle, frozen_picture, frozen_table
from .going_on import note_below
from .progress import Progress
from .reattach import Reattach
from .status import NO_ANYWIDGET, status_table
from .throttle import Throttle

if TYPE_CHECKING:
    from .live import LiveView, Mode

# widget: the live view; html: a table of the last numbers; end: nothing before the run is over.
Form = Literal["widget", "html", "end"]

SECONDS_TO_SHOW = 3.0  # a page that has not drawn the live view by then is taken for one that cannot
SECONDS_BETWEEN_TABLES = 1.0
SECONDS_HELD_BACK = 0.5  # of what a run in another process said last

WAITING = (
    "No run yet. When training is called, the model, the rows, the memory and the folder of the run are looked over "
    "first; then it appears here."
)

_EMPTY: Bundle = {"text/html": "", "text/plain": ""}
_BELOW = {"tunebook": "below"}  # metadata by which a page knows the lower output (view/frozen.js)


class NotebookScreen:
    """Owns the outputs of one dashboard."""

    def __init__(self, form: Form, *, on_request: Callable[[Request], object] | None):
        self._form = form
        self._hint = ""
        if form == "widget" and not has_anywidget():
            self._form, self._hint = "html", NO_ANYWIDGET
        self._on_request = on_request
        self._throttle = Throttle()
        self._reattach = Reattach()
        self._later: asyncio.TimerHandle | None = None
        self._view: LiveView | None = None
        self._began = 0.0  # when the view was shown
        self._ready = False  # a page has drawn it
        self._pages = 0  # that have, one after the other
        self._last_table = float("-inf")
        self._table_shown = False
        self._shown = False
        self._frozen: list[tuple[Bundle, dict[str, Any]]] = []  # the upper output and the lower, when a run has ended
        self._upper = f"tunebook-{uuid.uuid4().hex}"
        self._lower = f"{self._upper}-table"

    def show(self, run: Progress) -> None:
        """Put the dashboard into the cell that is running now. Shown in several cells, all of them are kept current."""
        if run.running and self._view is None:  # one that began before anyone looked
            self._open(run)
        self._put(run, display)
        self._shown = True

    def begin(self, run: Progress) -> None:
        """Show a run that has just started: where the dashboard already is, else in the cell that is running now."""
        older, self._frozen = self._view, []
        self._open(run)
        self._put(run, update_display if self._shown else display)
        self._shown = True
        if older is not None:
            older.close()

    def update(self, run: Progress, event: Event) -> None:
        """Show `event`, which `run` already holds; the last event of a run freezes the outputs."""
        now = time.monotonic()
        if isinstance(event, RunEnded):
            self._freeze(run)
        elif self._view is not None and (self._throttle.allows(event, now) or _is_first_checkpoint(run, event)):
            self._view.publish(run)
            self._stand_in(run, now)
            self._throttle.took(time.monotonic() - now)
        elif self._view is not None and run.attached_to is not None:
            self._publish_later(run)
        elif self._form == "html" and now - self._last_table >= SECONDS_BETWEEN_TABLES:
            self._last_table = now
            update_display(status_table(run, self._hint), raw=True, display_id=self._upper)

    def bring_back(self, run: Progress, mode: "Mode") -> None:
        """Show a run that is over in the cell that is running now, as `mode` says; where nobody looks, as saved."""
        if self._form == "widget":
            view = self._new_view(mode)
            view.publish(run)
            display(view)
            self._view = view
        else:
            picture, metadata = frozen_picture(run)
            display(picture, raw=True, metadata=metadata)
            display(frozen_table(run), raw=True)
            if self._hint:
                display(_text(self._hint), raw=True)

    def retire(self, run: Progress) -> None:
        """Make way for a newer dashboard of the same trainer; a run that has ended stays as it is."""
        if self._shown and run.ended is None:
            shown = "trainer" if run.attached_to is None else "run"
            update_display(_text(f"A newer dashboard shows this {shown}."), raw=True, display_id=self._upper)
            update_display(_EMPTY, raw=True, display_id=self._lower)
        if self._view is not None:
            self._view.close()
            self._view = None
        self._reattach.end()

    @property
    def picks(self) -> list[dict[str, str]]:
        """The choices made in the blind comparison of the view that is shown."""
        return list(self._view.picks) if self._view is not None else []

    def _open(self, run: Progress) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._form == "widget":
            self._view, self._ready, self._pages = self._new_view("live"), False, 0
            self._view.publish(run)
            self._began = time.monotonic()
            self._reattach.begin()

    def _publish_later(self, run: Progress) -> None:
        """Send what was held back: a log tells several events at once, and then nothing for as long as a step takes."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._later is None:
            self._later = loop.call_later(SECONDS_HELD_BACK, self._publish_now, run)

    def _publish_now(self, run: Progress) -> None:
        self._later = None
        if self._view is not None and run.ended is None:
            self._view.publish(run)

    def _new_view(self, mode: "Mode") -> "LiveView":
        from .live import LiveView  # needs anywidget, which may be missing

        return LiveView(self._on_request if mode == "live" else None, on_ready=self._page_is_there, mode=mode)

    def _page_is_there(self) -> None:
        self._ready = True
        self._pages += 1
        if self._frozen and self._view is not None:
            self._view.leave(*self._frozen)

    def _stand_in(self, run: Progress, now: float) -> None:
        """Below a live view that no page draws, a table of numbers; it goes when a page does.

        A synchronous cell cannot hear that a page is there, so none is put there.
        """
        if run.started is None or not (run.started.awaited or run.attached_to):
            return
        if self._ready and self._table_shown:
            self._table_shown = False
            update_display(note_below(run), raw=True, metadata=_BELOW, display_id=self._lower)
        late = now - self._began > SECONDS_TO_SHOW and now - self._last_table >= SECONDS_BETWEEN_TABLES
        if not self._ready and late:
            self._table_shown, self._last_table = True, now
            update_display(status_table(run), raw=True, metadata=_BELOW, display_id=self._lower)

    def _freeze(self, run: Progress) -> None:
        # Drawing the picture takes a moment, so the view says at once that the run is over. It is left open: a page
        # loaded again during the run has lost the display id, and is given what stands there by the view.
        if self._view is not None:
            self._view.publish(run)
        self._reattach.end()
        self._frozen = [frozen_picture(run), (frozen_table(run), _BELOW)]
        self._put(run, update_display)
        if self._view is not None and self._pages > 1:
            self._view.leave(*self._frozen)

    def _put(self, run: Progress, put: Callable[..., object]) -> None:
        """Fill both outputs as the run stands, with `display` (new outputs) or `update_display` (those there)."""
        if run.ended is not None:
            (picture, metadata), (table, below) = self._frozen or [frozen_picture(run), (frozen_table(run), _BELOW)]
            put(picture, raw=True, metadata=metadata, display_id=self._upper)
            put(table, raw=True, metadata=below, display_id=self._lower)
        elif self._view is not None:
            put(self._view, display_id=self._upper)
            put(note_below(run), raw=True, metadata=_BELOW, display_id=self._lower)
        elif self._form == "html" and run.running:
            put(status_table(run, self._hint), raw=True, display_id=self._upper)
            put(_EMPTY, raw=True, display_id=self._lower)
        else:
            waiting = "Training; the curves appear here when the run ends." if run.running else WAITING
            put(_text(waiting), raw=True, display_id=self._upper)
            put(_EMPTY, raw=True, display_id=self._lower)


def _is_first_checkpoint(run: Progress, event: Event) -> bool:
    """From here on the page says another line, should the kernel be lost: it is told at once."""
    return isinstance(event, CheckpointSaved) and len(run.checkpoints) == 1


def has_anywidget() -> bool:
    try:
        import anywidget  # noqa: F401 - asked only whether it is there
    except ModuleNotFoundError:
        return False
    return True


def _text(sentence: str) -> Bundle:
    return {"text/plain": sentence}
