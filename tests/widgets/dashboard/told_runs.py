"""Runs that are told and not trained: progress of a run put together from events, and what it left in HTML."""

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

from tests.browser.rehearsal import Rehearsal
from tunebook.events import (
    EndReason,
    Event,
    RunEnded,
    RunStarted,
    StepEvent,
)
from tunebook_widgets.dashboard.progress import Progress


def started_run(*, total: int, awaited: bool = True, model: str = "example/model") -> Progress:
    run = Progress()
    run.add(
        RunStarted(
            total_steps=total,
            model=model,
            trainable_parameters=25,
            total_parameters=1000,
            train_rows=8,
            eval_rows=4,
            awaited=awaited,
            config={"max_grad_norm": 1.0},
        )
    )
    return run


def step_event(step: int, *, total: int, loss: float = 1.5, elapsed: float | None = None, **values: Any) -> StepEvent:
    fields = {"lr": 1e-4, "tokens_sec": 500.0, "peak_gb": 1.5, "num_tokens": 100 * step, "grad_norm": 0.5} | values
    return StepEvent(
        step=step, total_steps=total, loss=loss, elapsed=2.0 * step if elapsed is None else elapsed, **fields
    )


def ended_run(step: int, total: int, reason: EndReason = EndReason.FINISHED, message: str = "") -> RunEnded:
    return RunEnded(step=step, total_steps=total, reason=reason, message=message, elapsed=7.0)


def rehearsed_run(trainer: Rehearsal) -> Progress:
    run = Progress()
    listen: Callable[[Event], None] = run.add
    trainer.subscribe(listen)
    trainer.train()
    return run


class HtmlPage(HTMLParser):
    """The tags and the text of a piece of HTML, and the cells of its tables."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.headings: list[str] = []
        self.values: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.add(tag)
        self._target = {"th": self.headings, "td": self.values}.get(tag)
        if self._target is not None:
            self._target.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._target is not None:
            self._target[-1] += data


def cells_of(html: str) -> dict[str, str]:
    page = HtmlPage(html.partition("</table>")[0])
    return dict(zip(page.headings, page.values, strict=True))
