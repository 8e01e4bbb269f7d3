"""What stays in the notebook when a run has ended: a PNG of the curves, a plain table and one sentence.

A `Progress` comes in, mime bundles go out. They need no kernel, script or style sheet, so GitHub, nbconvert and a
reopened, untrusted notebook show them alike.
"""

import base64
import html
from typing import Any

import numpy as np

from tunebook.machine.inert import one_line, visible

from .picture import PIXELS_PER_INCH, WIDTH_INCHES, height_inches, picture
from .progress import Progress
from .prose import as_html
from .wording import duration, exam_changes, exam_scores, loss, rate, reported, rows_to_train, verdict

Bundle = dict[str, str]  # mime type -> data

_NOTICES_KEPT = 20
_TOP = 'style="text-align: left; vertical-align: top"'
_LEFT = 'style="text-align: left"'  # notebooks align cells to the right, as suits a data frame


def frozen_picture(run: Progress) -> tuple[Bundle, dict[str, Any]]:
    """The curves of a run as a PNG at twice the size it is shown at, and the output metadata that says so."""
    return picture_bundle(picture(run), height_inches(run), f"Curves of the run: {verdict(run)}")


def picture_bundle(png: bytes, height_inches: float, text: str) -> tuple[Bundle, dict[str, Any]]:
    """A PNG of `picture.new_figure(height_inches)` as an output, and its metadata."""
    size = {"width": round(WIDTH_INCHES * PIXELS_PER_INCH), "height": round(height_inches * PIXELS_PER_INCH)}
    bundle = {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": one_line(text)}
    return bundle, {"image/png": size}


def frozen_table(run: Progress) -> Bundle:
    """The verdict, the numbers and the notices of a run that has ended, as plain HTML and as plain text."""
    sentence = verdict(run)
    rows = _table_rows(run)
    hidden = max(len(run.notices) - _NOTICES_KEPT, 0)
    notices = [f"step {notice.step}: {visible(notice.text)}" for notice in run.notices[hidden:]]
    if hidden:
        notices.insert(0, f"{hidden} earlier notices are in the run's event log.")
    cells = "".join(
        f"<tr><th {_LEFT}>{html.escape(name)}</th><td {_LEFT}>{html.escape(value)}</td></tr>" for name, value in rows
    )
    items = "".join(f"<li>{html.escape(text)}</li>" for text in notices)
    plain = [f"step {step}: {prompt!r} → {text!r}" for step, prompt, text in _samples(run)]
    return {
        "text/html": f"<p><strong>{html.escape(sentence)}</strong></p><table><tbody>{cells}</tbody></table>"
        + _samples_table(run)
        + (f"<ul>{items}</ul>" if items else ""),
        "text/plain": "\n".join([sentence, *(f"  {name:<16}{value}" for name, value in rows), *plain, *notices]),
    }


def _samples(run: Progress) -> list[tuple[int, str, str]]:
    """(step, prompt, text) of what the model wrote at first and at last, prompt by prompt."""
    first = {sample.prompt: sample for sample in reversed(run.samples)}
    shown = [sample for last in run.last_samples for sample in (first[last.prompt], last)]
    return list(dict.fromkeys((sample.step, visible(sample.prompt), visible(sample.text)) for sample in shown))


def _samples_table(run: Progress) -> str:
    """Each question once, with what was written at first and at last."""
    first = {sample.prompt: sample for sample in reversed(run.samples)}
    rows = ""
    for last in run.last_samples:
        before = first[last.prompt]
        texts = [last.prompt, before.text, *([last.text] if before is not last else [])]
        steps = ["", _after(before.step), *([_after(last.step)] if before is not last else [])]
        rows += "<tr>" + "".join(
            f"<td {_TOP}>{f'<em>{step}</em><br>' if step else ''}{as_html(visible(text))}</td>"
            for step, text in zip(steps, texts, strict=True)
        )
        rows += "</tr>"
    heads = "".join(f"<th {_LEFT}>{name}</th>" for name in ("Question", "Before", "After"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""


def _after(step: int) -> str:
    return f"step {step:,}" if step else "base model"


def _table_rows(run: Progress) -> list[tuple[str, str]]:
    end, rows = run.ended, []
    if run.started is not None:
        share = 100 * run.started.trainable_parameters / max(run.started.total_parameters, 1)
        rows.append(("Model", one_line(run.started.model)))
        rows.append(("Trained", f"{run.started.trainable_parameters:,} parameters ({share:.2f} %)"))
        rows.append(("Rows", f"{rows_to_train(run.started)} to train on, {run.started.eval_rows:,} held out"))
    if end is not None:
        rows.append(("Steps", f"{end.step:,} of {end.total_steps:,} in {duration(end.elapsed)}"))
    if run.last is not None:
        rows.append(("Loss", f"{loss(run.column('loss')[0])} → {loss(run.last.loss)}"))
    if run.best_eval is not None:
        first, last, best = run.evals[0], run.evals[-1], run.best_eval
        path = f"{loss(first.loss)} → {loss(last.loss)}, best " if len(run.evals) > 1 else ""
        rows.append(("Held-out loss", f"{path}{loss(best.loss)} at step {best.step:,}"))
    if run.last is not None and (said := reported(run.evals[-1].metrics if run.evals else run.last.metrics)):
        rows.append(("Held-out answers" if run.evals else "Answers", said))
    if run.scores:
        rows.append(("Exam", exam_scores(run)))
    if changes := exam_changes(run):
        rows.append(("What changed", changes))
    if run.rates:
        changes = ", ".join(f"{rate(change.learning_rate)} after step {change.step:,}" for change in run.rates)
        rows.append(("Learning rate set to", changes))
    if run.last is not None:
        rows.append(("Learning rate", f"{rate(run.column('lr').max())} at most, {rate(run.last.lr)} at the end"))
        rows.append(
            ("Tokens", f"{run.last.num_tokens:,} trained, {np.median(run.column('tokens_sec')):,.0f} per second")
        )
        if run.last.total_tokens:
            speed = f", {np.nanmedian(run.column('all_tokens_sec')):,.0f} per second"
            rows.append(("With padding", f"{run.last.total_tokens:,} tokens in all{speed}"))
        rows.append(("Peak memory", f"{run.last.peak_gb:.2f} GB"))
    if end is not None and end.message:
        rows.append(("Ended", visible(end.message)))
    return rows
