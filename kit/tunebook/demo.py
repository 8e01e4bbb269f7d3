"""`make demo`: the quickstart notebook executed from end to end, with a line that says how far it is.

It runs the checkout's notebook as it stands, in a kernel of its own, and leaves the executed notebook and everything it
made in `out/`. The notebook's run folder tells how training goes while it goes.
"""

import sys
import threading
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from .events import EvalEvent, StepEvent
from .runs.folder import EVENTS_FILE, read_events, run_folders

CHECKOUT = Path(__file__).parents[2]
NOTEBOOK = Path("notebooks/01_quickstart.ipynb")
CELL_SECONDS = 3600


def demo(checkout: Path = CHECKOUT) -> Path:
    """Execute the quickstart and print its last table; returns the path of the executed notebook.

    Raises FileNotFoundError outside a checkout and CellExecutionError when a cell fails; the notebook is saved, with
    the error in it, either way.
    """
    source = checkout / NOTEBOOK
    if not source.exists():
        raise FileNotFoundError(f"The demo runs {NOTEBOOK} of a checkout, and there is none at {checkout}.")
    out = checkout / "out"
    out.mkdir(exist_ok=True)
    executed = out / NOTEBOOK.name
    notebook = nbformat.read(source, as_version=4)
    notebook.metadata.pop("widgets", None)  # of an earlier execution; nbclient would keep it beside the new one
    line = _ProgressLine(notebook, out / "quickstart" / "runs")
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        record_timing=False,  # so that the result can be committed as it is
        resources={"metadata": {"path": str(out)}},
        on_cell_start=lambda cell, cell_index: line.cell_started(cell, cell_index),
    )
    try:
        # The kernel talks to its terminal about transports and frames; that belongs in a file.
        with line, (out / "kernel.log").open("w") as kernel_log:
            client.execute(stderr=kernel_log)
    finally:
        nbformat.write(notebook, executed)
    print(f"\n{_held_out(line.runs)}\n\n{_text_of_last_output(notebook)}\n\nThe notebook, as it ran: {executed}")
    return executed


class _ProgressLine:
    """Says which cell is running and, while it trains, the step and its loss; redrawn every second."""

    def __init__(self, notebook: nbformat.NotebookNode, runs: Path):
        self.cells = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
        self.headings = _headings(notebook)
        self.runs = runs
        self.known = len(run_folders(runs))  # older runs in the same folder are not this one
        self.began = time.monotonic()
        self.current = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._draw_until_done, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        print(file=sys.stderr)

    def cell_started(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        if cell.cell_type == "code":
            self.current = cell_index

    def _draw_until_done(self) -> None:
        on_screen = sys.stderr.isatty()
        last = ""
        while not self.done.wait(1):
            text = self._text()
            if on_screen:
                print(f"\r\x1b[K{self._clock()}  {text}", end="", file=sys.stderr, flush=True)
            elif text != last:
                print(f"{self._clock()}  {text}", file=sys.stderr, flush=True)
            last = text

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        return f"{minutes:02d}:{seconds:02d}"

    def _text(self) -> str:
        position = self.cells.index(self.current) + 1 if self.current in self.cells else 1
        return f"cell {position} of {len(self.cells)}: {self.headings[self.current]}{self._training()}"

    def _training(self) -> str:
        folders = run_folders(self.runs)[self.known :]
        if not folders or not (folders[-1] / EVENTS_FILE).exists():
            return ""
        steps = [event for event in read_events(folders[-1]) if isinstance(event, StepEvent)]
        if not steps or steps[-1].step == steps[-1].total_steps:
            return ""
        return f", step {steps[-1].step} of {steps[-1].total_steps}, loss {steps[-1].loss:.3f}"


def _headings(notebook: nbformat.NotebookNode) -> list[str]:
    """The heading each cell stands under."""
    headings, heading = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            heading = cell.source.splitlines()[0].lstrip("# ")
        headings.append(heading)
    return headings


def _held_out(runs: Path) -> str:
    scores = [event for event in read_events(run_folders(runs)[-1]) if isinstance(event, EvalEvent)]
    before, after = scores[0], scores[-1]
    return f"held-out loss: {before.loss:.3f} before, {after.loss:.3f} after {after.step} steps ({after.rows} rows)"


def _text_of_last_output(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return outputs[-1].data["text/plain"]
