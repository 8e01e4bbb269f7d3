"""Where a run stands, as a small HTML table: for a notebook whose front end shows no widgets.

A `Progress` comes in, a mime bundle goes out: a sentence, a bar and the last numbers, without script or style sheet.
"""

import html
import math

from tunebook.machine.inert import visible

from .freeze import Bundle
from .progress import Progress
from .wording import duration, headline, loss, rate, reported, tokens_sec

NO_ANYWIDGET = (
    "Live charts and buttons need the package anywidget: run %pip install anywidget, then restart the kernel."
)


def status_table(run: Progress, hint: str = "") -> Bundle:
    """`hint` is one more sentence below the table."""
    sentence, rows = headline(run), _rows(run)
    bar = f'<progress value="{run.last.step if run.last else 0}" max="{max(run.total_steps, 1)}"></progress>'
    heads = "".join(f"<th>{name}</th>" for name, _ in rows)
    cells = "".join(f"<td>{html.escape(value)}</td>" for _, value in rows)
    notice = f"step {run.notices[-1].step}: {visible(run.notices[-1].text)}" if run.notices else ""
    more = [text for text in (notice, hint) if text]
    return {
        "text/html": f"<p><strong>{html.escape(sentence)}</strong> {bar}</p>"
        f"<table><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table>"
        + "".join(f"<p>{html.escape(text)}</p>" for text in more),
        "text/plain": "\n".join([sentence, *more]),
    }


def _rows(run: Progress) -> list[tuple[str, str]]:
    last = run.last
    if last is None:
        return [("Step", f"0 of {run.total_steps:,}")]
    rows = [("Step", f"{last.step:,} of {last.total_steps:,}"), ("Loss", loss(last.loss))]
    if run.best_eval is not None:
        rows.append(("Best held-out", f"{loss(run.best_eval.loss)} at {run.best_eval.step:,}"))
    if said := reported(last.metrics):
        rows.append(("Reported", said))
    if math.isfinite(last.grad_norm):
        rows.append(("Gradient norm", f"{last.grad_norm:.2f}"))
    return [
        *rows,
        ("Learning rate", rate(last.lr)),
        ("Trained tokens/s", tokens_sec(run)),
        ("Peak memory", f"{last.peak_gb:.2f} GB"),
        ("Elapsed", duration(last.elapsed)),
    ]
