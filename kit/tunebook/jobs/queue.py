"""The queue as a table: which runs go on, which wait for them, and what each will need of memory."""

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..machine.inert import one_line
from ..runs.looked_after.state import read_state
from .layout import read_description, read_order
from .life import read_beat
from .run import known
from .tickets import Ticket, tickets

COLUMNS = ("", "Run", "State", "Step", "Memory", "Model")


@dataclass(frozen=True, kw_only=True)
class Queued:
    """One run of the queue."""

    place: int  # 1: its turn has come, or it is next
    folder: Path
    state: str  # "running", "waiting" or "pausing", before it is begun again
    step: int  # optimizer steps completed
    estimate_gb: float  # 1e9 bytes, what it will need
    model: str

    @property
    def cells(self) -> tuple[str, ...]:
        """What the columns of the table have."""
        step = str(self.step) if self.state != "waiting" else ""
        memory = f"{self.estimate_gb:.1f} GB" if self.estimate_gb else "not known"
        return str(self.place), _from_here(self.folder), self.state, step, memory, one_line(self.model)


@final
class Queue(Sequence[Queued]):
    """The runs that go on or wait now, in their order; a cell that ends with it shows a table."""

    def __init__(self, runs: Sequence[Queued]):
        self._runs = tuple(runs)

    def __len__(self):
        return len(self._runs)

    def __getitem__(self, index):
        return self._runs[index]

    def __repr__(self):
        if not self._runs:
            return "No run goes on and none waits."
        rows = [COLUMNS, *(run.cells for run in self._runs)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _repr_html_(self):
        if not self._runs:
            return f"<p>{self!r}</p>"
        head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in run.cells)}</tr>" for run in self._runs
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def queue() -> Queue:
    """The runs of this user that go on or wait for others, in their order.

    >>> waiting = jobs.queue()
    """
    drawn = [_queued(place, ticket) for place, ticket in enumerate(tickets(), start=1)]
    there = {run.folder.resolve() for run in drawn}
    waiting = sorted({run.run_folder.resolve() for run in [*known] if run.state == "waiting"} - there)
    begun = [_about_to_queue(place, folder) for place, folder in enumerate(waiting, start=len(drawn) + 1)]
    return Queue([*drawn, *begun])


def _queued(place: int, ticket: Ticket) -> Queued:
    folder = Path(ticket.folder)
    state, beat = read_state(folder), read_beat(folder)
    return Queued(
        place=place,
        folder=folder,
        state=state.state if ticket.runs and state is not None else "waiting",
        step=beat.step if beat is not None else 0,
        estimate_gb=ticket.estimate_gb,
        model=ticket.model,
    )


def _about_to_queue(place: int, folder: Path) -> Queued:
    """A run of this kernel whose supervisor was started a moment ago, and has drawn no ticket yet."""
    return Queued(
        place=place,
        folder=folder,
        state="waiting",
        step=0,
        estimate_gb=read_order(folder).estimate_gb,
        model=read_description(folder)["model"]["name"],
    )


def _from_here(folder: Path) -> str:
    """The path as it is typed here."""
    here = Path(os.getcwd())
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
